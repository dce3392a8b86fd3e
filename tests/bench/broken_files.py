"""Experiment files with one mistake each."""

from __future__ import annotations

SMALL = "name: t\ndata: digits\nmethods: [sgd]\nbudget: {epochs: 1}\n"


def more(text: str) -> str:
    return SMALL + text


def but(**fields: str) -> str:
    """The small file with other values."""
    lines = SMALL.splitlines()
    for name, value in fields.items():
        index = next(i for i, line in enumerate(lines) if line.startswith(name))
        lines[index] = f"{name}: {value}"
    return "\n".join(lines) + "\n"


def methods(*lines: str) -> str:
    """The small file, with methods from line 4 onwards."""
    return SMALL.replace(
        "methods: [sgd]\nbudget: {epochs: 1}\n", "budget: {epochs: 1}\nmethods:\n"
    ) + ("".join(f"{line}\n" for line in lines))


def profile(*lines: str) -> str:
    return more("profiles:\n  smoke:\n" + "".join(f"    {line}\n" for line in lines))


LONG = "x" * 5000
_MANY = [round(0.01 * number, 2) for number in range(30)]
# Text, line, field, and words of the cure.
BROKEN: dict[str, tuple[str, int, str, str]] = {
    "unknown field": (more("batchsize: 3\n"), 5, "batchsize", "did you mean 'batch_size'"),
    "unknown everywhere": (more("colour: 3\n"), 5, "colour", "choose from 'name', 'title'"),
    "profile for profiles": (more("profile: {}\n"), 5, "profile", "did you mean 'profiles'"),
    "unknown in budget": (but(budget="{epoch: 1}"), 4, "budget.epoch", "did you mean 'epochs'"),
    "unknown in tuning": (more("tuning: {seed: 1}\n"), 5, "tuning.seed", "did you mean 'seeds'"),
    "unknown in method": (
        methods("- sgd", "- method: adam", "  lable: A"),
        *(7, "methods.1.lable", "did you mean 'label'"),
    ),
    "no name": ("data: digits\nmethods: [sgd]\nbudget: {epochs: 1}\n", 1, "name", "write it"),
    "no method": (methods("- label: A"), 5, "methods.0.method", "write it"),
    "name is a number": (but(name="7"), 1, "name", "valid string"),
    "name is a path": (but(name="../t"), 1, "name", "letters, digits, dots and hyphens"),
    "name is null": (but(name=""), 1, "name", "valid string"),
    "title with ESC": (more('title: "\\e[2J"\n'), 5, "title", "remove them"),
    "data unknown": (but(data="[digits, mnits]"), 2, "data.1", "did you mean 'mnist'"),
    "data number": (but(data="[digits, 3]"), 2, "data.1", "valid string"),
    "data empty": (but(data="[]"), 2, "data", "at least one"),
    "data twice": (but(data="[a/x.csv, b/x.csv]"), 2, "data.1", "x stands twice: remove one"),
    "data too long": (but(data=LONG), 2, "data", "write another"),
    "data of nobody": (but(data="~nobody-here/x.csv"), 2, "data", "write another"),
    "data with NUL": (but(data='"a/\\0.csv"'), 2, "data", "write another"),
    "model unknown": (more("model: [mlp, rsnet18]\n"), 5, "model.1", "did you mean 'resnet18'"),
    "model twice": (more("model:\n- cnn\n- cnn\n"), 7, "model.1", "remove one"),
    "width zero": (more("width: [8, 0]\n"), 5, "width.1", "greater than or equal to 1"),
    "width huge": (more("width: 100000000000\n"), 5, "width", "less than or equal to 1000000"),
    "width bool": (more("width: true\n"), 5, "width", "valid integer"),
    "width text": (more("width: ten\n"), 5, "width", "valid integer"),
    "width empty": (more("width: []\n"), 5, "width", "at least one"),
    "width too deep": (more("width: [[[8]]]\n"), 5, "width.0.0", "valid integer"),
    "width twice": (more("width: [[8], 8]\n"), 5, "width.1", "8 stands twice"),
    "methods empty": (but(methods="[]"), 3, "methods", "at least one"),
    "methods text": (but(methods="sgd"), 3, "methods", "valid list"),
    "method null": (methods("-"), 5, "methods.0", "a method, or a mapping with method, label"),
    "method unknown": (methods("- sgd", "- sdg"), 6, "methods.1", "did you mean 'sgd'"),
    "method's option unknown": (methods("- sgd:lrr=1"), 5, "methods.0", "did you mean 'lr'"),
    "method's option wrong": (methods("- sgd:lr=-1"), 5, "methods.0", "at least 0"),
    "option unknown": (
        methods("- method: sgd", "  options: {lr: 1, momentun: 0}"),
        *(6, "methods.0.options.momentun", "did you mean 'momentum'"),
    ),
    "option wrong": (
        methods("- method: sgd", "  options:", "    lr: 1", "    momentum: [0, 2]"),
        *(8, "methods.0.options.momentum", "at least 0 and below 1"),
    ),
    "option NaN": (
        methods("- {method: sgd, options: {lr: .nan}}"),
        *(5, "methods.0.options.lr", "a finite number"),
    ),
    "option a mapping": (
        methods("- {method: sgd, options: {lr: {a: 1}}}"),
        *(5, "methods.0.options.lr", "a valid number or a valid string or a valid list"),
    ),
    "option a list of lists": (
        methods("- {method: sgd, options: {lr: [[1]]}}"),
        *(5, "methods.0.options.lr", "a valid number or a valid string"),
    ),
    "option empty": (
        methods("- {method: sgd, options: {lr: []}}"),
        *(5, "methods.0.options.lr", "at least one value"),
    ),
    "tune empty": (
        methods("- {method: sgd, tune: {lr: []}}"),
        *(5, "methods.0.tune.lr", "at least one"),
    ),
    "tune one value": (
        methods("- {method: sgd, tune: {lr: 1}}"),
        *(5, "methods.0.tune.lr", "valid list"),
    ),
    "in options and tune": (
        methods("- method: sgd", "  options: {lr: 1}", "  tune: {lr: [1, 2]}"),
        *(7, "methods.0.tune.lr", "stands in options, too: remove one"),
    ),
    "in method and options": (
        methods("- {method: 'sgd:lr=1', options: {lr: 2}}"),
        *(5, "methods.0.options.lr", "stands in method, too: remove one"),
    ),
    "in method and tune": (
        methods("- {method: 'sgd:lr=1', tune: {lr: [2]}}"),
        *(5, "methods.0.tune.lr", "stands in method, too: remove one"),
    ),
    "method twice": (methods("- sgd", "- adam", "- sgd"), 7, "methods.2", "remove one, or label"),
    "label twice": (
        methods("- {method: sgd, label: a}", "- {method: adam, label: a}"),
        *(6, "methods.1", "'a' stands twice: remove one, or label"),
    ),
    "label of another grid": (
        methods("- {method: sgd, options: {lr: [0.1, 0.2]}}", "- sgd:lr=0.2"),
        *(6, "methods.1", "'sgd:lr=0.2' stands twice"),
    ),
    "value twice": (
        methods("- {method: sgd, options: {lr: [0.1, 0.1]}}"),
        *(5, "methods.0", "'sgd:lr=0.1' stands twice"),
    ),
    "label number": (methods("- {method: sgd, label: 3}"), 5, "methods.0.label", "valid string"),
    "two budgets": (but(budget="{epochs: 1, passes: 2}"), 4, "budget", "exactly one of epochs"),
    "no budget": (but(budget="{}"), 4, "budget", "exactly one of epochs, passes and seconds"),
    "budget a number": (but(budget="3"), 4, "budget", "a mapping with epochs, passes, seconds"),
    "epochs negative": (but(budget="{epochs: -1}"), 4, "budget.epochs", "greater than or equal"),
    "epochs text": (but(budget="{epochs: '1'}"), 4, "budget.epochs", "valid number"),
    "epochs bool": (but(budget="{epochs: true}"), 4, "budget.epochs", "valid number"),
    "epochs infinite": (but(budget="{epochs: .inf}"), 4, "budget.epochs", "finite number"),
    "epochs too many": (but(budget="{epochs: 1e999}"), 4, "budget.epochs", "finite number"),
    "passes half": (but(budget="{passes: 1.5}"), 4, "budget.passes", "valid integer"),
    "passes huge": (but(budget="{passes: 0xffffffffffffffffff}"), 4, "budget.passes", "too large"),
    "seconds zero": (but(budget="{seconds: 0}"), 4, "budget.seconds", "greater than 0"),
    "seeds in base 60": (more(f"seeds: 1{':1' * 100_000}\n"), 5, "seeds", "number is too large"),
    "too many methods": (
        methods(
            f"- {{method: sgd, options: {{lr: {_MANY}, momentum: {_MANY}, weight_decay: {_MANY}}}}}"
        ),
        *(5, "methods.0.options", "more than 10000 methods: write fewer"),
    ),
    "too much to choose from": (
        methods(
            f"- {{method: sgd, tune: {{lr: {_MANY}, momentum: {_MANY}, weight_decay: {_MANY}}}}}"
        ),
        *(5, "methods.0.tune", "more than 10000 methods: write fewer"),
    ),
    "too many cells": (
        methods(f"- {{method: sgd, options: {{lr: {_MANY}}}}}") + "seeds: 5000\n",
        *(4, "methods", "more than 100000 cells: write several files"),
    ),
    "seed negative": (more("seeds: [0, -1]\n"), 5, "seeds.1", "greater than or equal to 0"),
    "seed bool": (more("seeds: [true]\n"), 5, "seeds.0", "valid integer"),
    "seed twice": (more("seeds:\n- 0\n- 1\n- 0\n"), 8, "seeds.2", "0 stands twice: remove one"),
    "seed huge": (more("seeds: [2199023255552]\n"), 5, "seeds.0", "less than or equal to"),
    "no seeds": (more("seeds: 0\n"), 5, "seeds", "from 1 to 10000"),
    "seeds negative": (more("seeds: -1\n"), 5, "seeds", "from 1 to 10000"),
    "seeds too many": (more("seeds: 1000000000000\n"), 5, "seeds", "from 1 to 10000"),
    "seeds bool": (more("seeds: true\n"), 5, "seeds", "valid list"),
    "tuning seeds twice": (more("tuning: {seeds: [1, 1]}\n"), 5, "tuning.seeds.1", "remove one"),
    "tuning without seeds": (more("tuning:\n  seeds: []\n"), 6, "tuning.seeds", "at least one"),
    "batch zero": (more("batch_size: 0\n"), 5, "batch_size", "greater than or equal to 1"),
    "batch bool": (more("batch_size: true\n"), 5, "batch_size", "valid integer"),
    "dropout one": (more("dropout: 1\n"), 5, "dropout", "less than 1"),
    "dropout bool": (more("dropout: false\n"), 5, "dropout", "valid number"),
    "evaluate never": (more("evaluate: .inf\n"), 5, "evaluate", "finite number"),
    "validation all": (more("validation: 1.0\n"), 5, "validation", "less than 1"),
    "split a word": (more("split: sed\n"), 5, "split", "a valid integer or 'seed'"),
    "timeout negative": (more("timeout: -3\n"), 5, "timeout", "greater than 0"),
    "exclude unknown": (more("exclude:\n- {dat: digits}\n"), 6, "exclude.0.dat", "mean 'data'"),
    "exclude everything": (more("exclude: [{}]\n"), 5, "exclude.0", "at least one key"),
    "exclude text": (more("exclude: digits\n"), 5, "exclude", "valid list"),
    "profiles a list": (more("profiles: [a]\n"), 5, "profiles", "map a name to the fields"),
    "profile empty": (more("profiles:\n  smoke:\n"), 5, "profiles", "map a name to the fields"),
    "profile with a space": (
        more("profiles:\n  a: {}\n  my smoke: {}\n"),
        *(7, "profiles.my smoke", "letters, digits, dots, hyphens"),
    ),
    "budget of a method": (
        methods("- {method: sgd, budget: {epoch: 1}}"),
        *(5, "methods.0.budget.epoch", "did you mean 'epochs'"),
    ),
    "profile unknown": (profile("sed: 1"), 7, "profiles.smoke.sed", "did you mean 'seeds'"),
    "profile wrong": (
        profile("seeds: 1", "budget: {epochs: -1}"),
        *(8, "profiles.smoke.budget.epochs", "greater than or equal"),
    ),
    "profile in profile": (profile("profiles: {}"), 7, "profiles.smoke.profiles", "unknown field"),
    "key twice": (more("title: a\nname: u\n"), 6, "name", "name stands twice: remove one"),
    "key below twice": (
        but(budget="{epochs: 1,\n  epochs: 2}"),
        *(5, "budget.epochs", "stands twice: remove one"),
    ),
    "key a number": (more("profiles:\n  1: {seeds: 2}\n"), 6, "profiles", "put it in quotes"),
    "key a bool": (more("yes: 3\n"), 5, "the file", "'yes' is no text to YAML: put it in quotes"),
    "key a list": (more("? [a, b]\n: 3\n"), 5, "the file", "no name of a field: write one"),
    "no end": (more("title: [a\n"), 6, "the file", "correct the YAML"),
    "two colons": ("name: t\ndata: a: b\n", 2, "the file", "correct the YAML"),
    "a tab": (but(budget="\n\tepochs: 1"), 5, "the file", "correct the YAML"),
    "two documents": (more("---\nname: t\n"), 5, "the file", "correct the YAML"),
    "control character": (more("title: \x01\n"), 5, "the file", "U+0001: remove it"),
    "half a pair": (but(data='"\\ud800/a.csv"'), 2, "data", "remove it"),
    "object": (but(name="!!python/object/apply:os.getpid []"), 1, "name", "correct the YAML"),
    "object as file": ("!!python/object:os.x {}\n", 1, "the file", "correct the YAML"),
    "unknown tag": (but(name="!it t"), 1, "name", "correct the YAML"),
    "date": (but(name="2020-13-45"), 1, "name", "read as timestamp: correct the YAML"),
    "no timestamp": (but(name="!!timestamp x"), 1, "name", "read as timestamp"),
    "no bool": (but(name="!!bool x"), 1, "name", "cannot be read as bool"),
    "int of nothing": (but(name="!!int"), 1, "name", "cannot be read as int"),
    "no int": (more(f"seeds: {'9' * 5000}\n"), 5, "seeds", "cannot be read as int"),
    "unknown alias": (more("title: *here\n"), 5, "the file", "correct the YAML"),
    "alias in itself": (more("title: &a [*a]\n"), 5, "title.0", "write out"),
}
