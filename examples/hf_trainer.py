"""SAMT in the Trainer of Hugging Face: a tiny GPT-2 learns a pattern of tokens; and it resumes."""

import tempfile

import torch
from torch import Tensor
from torch.utils.data import Dataset
from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainingArguments

import samt
from samt.integrations.transformers import StepSizes

VOCABULARY, LENGTH, STEPS = 32, 16, 200


class Sequences(Dataset[dict[str, Tensor]]):
    """Each token is 5 times the one before, plus 3: the first one alone is random."""

    def __len__(self) -> int:
        return 2048

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        token, tokens = index * 7 % VOCABULARY, []
        for _ in range(LENGTH):
            tokens.append(token)
            token = (5 * token + 3) % VOCABULARY
        return {"input_ids": torch.tensor(tokens), "labels": torch.tensor(tokens)}


def build(folder: str, seed: int) -> tuple[Trainer, GPT2LMHeadModel]:
    torch.manual_seed(seed)
    config = GPT2Config(
        vocab_size=VOCABULARY, n_positions=LENGTH, n_embd=32, n_layer=2, n_head=2,
        bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    model = GPT2LMHeadModel(config)
    arguments = TrainingArguments(
        output_dir=folder,
        max_steps=STEPS,
        per_device_train_batch_size=16,
        lr_scheduler_type="constant",  # the step of SAMT ends at zero by itself
        logging_steps=50,
        save_steps=STEPS // 2,
        use_cpu=True,
        report_to="none",
        disable_tqdm=True,
    )
    optimizer = samt.AutoSAMT(model)
    trainer = Trainer(model, arguments, train_dataset=Sequences(), optimizers=(optimizer, None))
    trainer.add_callback(StepSizes(trainer))
    return trainer, model


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        trainer, model = build(folder, seed=0)
        trainer.train()
        other, resumed = build(folder, seed=1)
        other.train(resume_from_checkpoint=f"{folder}/checkpoint-{STEPS // 2}")
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    print(f"training loss: {losses[-1]:.3f}")
    pairs = zip(model.parameters(), resumed.parameters(), strict=True)
    print(f"same weights after resuming: {all(torch.equal(a, b) for a, b in pairs)}")


if __name__ == "__main__":
    main()
