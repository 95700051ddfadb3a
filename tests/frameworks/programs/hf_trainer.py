"""A script for Hugging Face's Trainer as people write it: it knows nothing of headway. The model is made on
the spot, and nothing is downloaded."""

from __future__ import annotations

import hashlib
import os
import time
from typing import Any

import torch
from transformers import BertConfig, BertForSequenceClassification, Trainer, TrainingArguments
from transformers.trainer_utils import get_last_checkpoint

PACE = 0.015
"""Seconds to read an item, so that some lie between two of the Trainer's saves."""


class Numbers(torch.utils.data.Dataset):  # type: ignore[misc]  # PyTorch's types are not read
    """Rows of numbers, and whether their sum is odd."""

    def __init__(self, pace: float = 0.0) -> None:
        self.pace = pace

    def __len__(self) -> int:
        return 256

    def __getitem__(self, index: int) -> dict[str, Any]:
        time.sleep(self.pace)
        row = torch.randint(0, 50, (16,), generator=torch.Generator().manual_seed(index))
        return {"input_ids": row, "labels": int(row.sum() % 2)}


def main() -> None:
    """Train, or go on training, and say what came out."""
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=50,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=32,
    )
    model = BertForSequenceClassification(config)
    arguments = TrainingArguments(
        "out",
        num_train_epochs=2,
        per_device_train_batch_size=16,
        save_steps=8,
        save_total_limit=2,
        report_to=[],
        disable_tqdm=True,
        seed=1,
        use_cpu=True,
    )
    last = get_last_checkpoint("out") if os.path.isdir("out") else None
    print("going on from", last, flush=True)
    trainer = Trainer(model, arguments, train_dataset=Numbers(PACE))
    trainer.train(resume_from_checkpoint=last)
    weights = b"".join(each.detach().numpy().tobytes() for each in model.parameters())
    print("weights", trainer.state.global_step, hashlib.sha256(weights).hexdigest(), flush=True)


if __name__ == "__main__":
    main()
