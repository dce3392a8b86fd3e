"""`samt data`, and data of the user's own in `samt train` and `samt compare`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from samt.bench.data import DATASETS, absolute, load

from .conftest import Samt
from .data_files import cifar_files, pictures, write_all, zip_bytes
from .idx_files import write_images

# Those that need no file, and those of `data_dir`.
HERE = ("digits", "diabetes", "least-squares", "characters", "mnist", "mnist-normalised")
FAST = ("--epochs", "1", "--batch-size", "16", "--threads", "1", "--hidden", "4")


def test_list_shows_what_is_here(samt_here: Samt, data_dir: Path) -> None:
    outcome = samt_here("data", "list", "--data-dir", data_dir)
    assert outcome.code == 0
    here = {
        line.split()[0]: " yes " in line
        for line in outcome.out.splitlines()
        if line.split() and line.split()[0] in DATASETS
    }
    assert here == {name: name in HERE for name in DATASETS}


@pytest.mark.parametrize("name", DATASETS)
def test_every_data_set_is_described(samt_here: Samt, data_dir: Path, name: str) -> None:
    outcome = samt_here("data", "info", name, "--data-dir", data_dir)
    assert (outcome.code, outcome.err) == (0, "")
    shown = "checksum" if name in HERE else "here       no"
    assert shown in outcome.out


@pytest.mark.parametrize("name", HERE[:4])
def test_what_needs_no_file_is_prepared_too(samt_here: Samt, tmp_path: Path, name: str) -> None:
    outcome = samt_here("data", "prepare", name, "--data-dir", tmp_path)
    assert (outcome.code, outcome.err) == (0, "")
    assert "checksum" in outcome.out
    assert not list(tmp_path.iterdir())


def test_text_is_described_in_characters(samt_here: Samt, tmp_path: Path) -> None:
    outcome = samt_here("data", "info", "characters", "--data-dir", tmp_path)
    assert "4000 samples of 64 targets, 0 to" in outcome.out


def test_info_without_files_tells_where_to_get_them(samt_here: Samt, tmp_path: Path) -> None:
    outcome = samt_here("data", "info", "kmnist", "--data-dir", tmp_path)
    assert outcome.code == 0
    for words in ("CC BY-SA 4.0", "samt data prepare kmnist", "https://codh.rois.ac.jp"):
        assert words in outcome.out


def test_info_shows_parts_classes_and_checksums(samt_here: Samt, data_dir: Path) -> None:
    command = ("data", "info", "mnist", "--data-dir", data_dir, "--validation", "0.25")
    outcome = samt_here(*command, "--split-seed", "7")
    words = ("1 x 8 x 8", "72 samples", "24 samples", "40 samples", "number 7", "not byte by byte")
    for word in words:
        assert word in outcome.out


def own_data(folder: Path) -> dict[str, Path]:
    """One of each form."""
    random = np.random.default_rng(0)
    images = random.integers(0, 255, (40, 8, 8), dtype=np.uint8)
    table = "".join(f"{a},{b},{a + b}\n" for a, b in random.normal(size=(40, 2)))
    write_all(
        folder,
        {
            "table.csv": table.encode(),
            "my album.zip": zip_bytes(pictures(8)),
            **{f"album/{name}": content for name, content in pictures(8).items()},
        },
    )
    np.savez(folder / "arrays.npz", x=images, y=np.arange(40) % 4)
    write_images(folder / "idx")
    names = ("table.csv", "arrays.npz", "my album.zip", "album", "idx")
    paths = {name: folder / name for name in names}
    return {**paths, "pair": folder / "idx" / "train-images-idx3-ubyte.gz"}


@pytest.mark.parametrize(
    "kind", ["table.csv", "arrays.npz", "my album.zip", "album", "idx", "pair"]
)
def test_own_data_are_shown_and_trained_on(
    samt_here: Samt, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    path = own_data(tmp_path)[kind]
    monkeypatch.chdir(tmp_path)
    assert samt_here("data", "info", path).code == 0
    outcome = samt_here("train", "--data", path, *FAST, "--optimizer", "sgd")
    assert outcome.code == 0, outcome
    (run,) = (tmp_path / "runs").iterdir()
    assert (run / "metrics.csv").exists()
    assert samt_here("train", "--data", path, *FAST, "--optimizer", "sgd", "--resume").code == 0


def test_compare_takes_a_path_and_a_folder_name(
    samt_here: Samt, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own_data(tmp_path)
    monkeypatch.chdir(tmp_path)
    outcome = samt_here("compare", "--data", "album", *FAST, "--run-dir", "out", "sgd", "adam")
    assert outcome.code == 0, outcome
    assert (tmp_path / "out" / "comparison.png").exists()


def test_deep_networks_train_on_cifar(samt_here: Samt, tmp_path: Path) -> None:
    write_all(tmp_path / "cifar10", cifar_files())
    for model in ("resnet18:2", "vgg11:2", "cnn:4"):
        outcome = samt_here(
            *("train", "--data", "cifar10", "--data-dir", tmp_path, "--model", model, *FAST),
            *("--run-dir", tmp_path / model.replace(":", "-")),
        )
        assert outcome.code == 0, outcome


def test_a_home_folder_is_one_behind_an_equals_sign_too(
    samt_here: Samt, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own_data(tmp_path)
    write_images(tmp_path / "mnist")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert "96 samples" in samt_here("data", "info", "mnist", "--data-dir=~").out
    assert samt_here("data", "info", "~/album").code == 0
    words = ("train", "--data=~/table.csv", "--run-dir=~/kept", *FAST, "--optimizer", "sgd:lr=0.01")
    assert samt_here(*words).code == 0
    assert (tmp_path / "kept" / "settings.json").exists()
    assert len(load("mnist", Path("~")).train) == 96


@pytest.mark.parametrize("data", ["table.csv", "album", "./album"])
def test_a_run_goes_on_from_another_folder(
    samt_here: Samt, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data: str
) -> None:
    own_data(tmp_path)
    monkeypatch.chdir(tmp_path)
    words = ("--optimizer", "sgd:lr=0.01", "--resume")
    assert samt_here("train", "--data", data, "--run-dir", "run", *FAST, *words[:2]).code == 0
    (tmp_path / "below").mkdir()
    monkeypatch.chdir(tmp_path / "below")
    alone = samt_here("train", "--run-dir", tmp_path / "run", "--resume", "--epochs", "2")
    assert alone.code == 0, alone
    named = ("train", "--data", Path("..") / data, "--run-dir", tmp_path / "run", *words)
    assert samt_here(*named, "--epochs", "3").code == 0


def test_a_name_that_means_the_same_in_every_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own_data(tmp_path)
    monkeypatch.chdir(tmp_path)
    names = ("album", "table.csv", "~/x.csv", "mnist")
    monkeypatch.setenv("HOME", "/home")
    found = [absolute(name) for name in names]
    assert found == [f"{tmp_path}/album", f"{tmp_path}/table.csv", "/home/x.csv", "mnist"]


def test_info_says_how_a_table_was_understood(samt_here: Samt, tmp_path: Path) -> None:
    lines = "".join(f"{at},{at}.5,{'ab'[at % 2]}\n" for at in range(20))
    (tmp_path / "t.csv").write_text(f",size,kind\n{lines}")
    shown = samt_here("data", "info", tmp_path / "t.csv").out
    assert "note       The first column is an index, which is left out." in shown
    assert "inputs of 1, 2 outputs" in shown


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("data info mnits", "did you mean 'mnist'"),
        ("data info {tmp}/absent.csv", "there is no"),
        ("data info {tmp}", "holds nothing that samt reads"),
        ("data info {tmp}/notes.txt", "form that samt does not read"),
        ("data info {tmp}/lonely-images-idx3-ubyte", "no lonely-labels-idx1-ubyte"),
        ("data info digits --validation 1", "at least 0 and below 1"),
        ("data info digits --validation -0.1", "at least 0 and below 1"),
        ("data prepare cifar10-jpeg --data-dir {tmp}", "no cifar10-jpeg.zip"),
        ("train --data {tmp}/absent.npz", "there is no"),
        ("compare --data {tmp}/absent.zip", "there is no"),
    ],
)
def test_mistakes_are_one_line(samt_here: Samt, tmp_path: Path, command: str, words: str) -> None:
    write_all(tmp_path, {"notes.txt": b"notes", "lonely-images-idx3-ubyte": b"x"})
    samt_here(*(word.format(tmp=tmp_path) for word in command.split())).is_user_error(words)


@pytest.mark.parametrize("command", ["data", "data list", "data info", "data prepare"])
def test_help_names_no_option_twice(samt_here: Samt, command: str) -> None:
    outcome = samt_here(*command.split(), "--help")
    assert outcome.code == 0
    assert "Usage: samt data" in outcome.out


def test_help_says_what_data_of_your_own_look_like(samt_here: Samt) -> None:
    text = " ".join(samt_here("data", "--help").out.split())
    for form in ("the last, which is the target", "x_train", "train/CLASS/", "images-idx3-ubyte"):
        assert form in text


def test_a_path_names_the_run_folder_by_its_last_part(
    samt_here: Samt, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own_data(tmp_path)
    monkeypatch.chdir(tmp_path)
    samt_here("train", "--data", tmp_path / "table.csv", *FAST, "--optimizer", "sgd:lr=0.01")
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["table-mlp-sgd-lr=0.01-seed0"]
