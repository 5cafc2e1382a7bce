"""Prune a model, fine-tune it under its masks, and check that every pruned weight is still zero.

    python examples/fine_tune.py
    python examples/fine_tune.py --model HuggingFaceTB/SmolLM2-135M --text FILE --steps 200 --to FOLDER

Without a model it makes a tiny random one, which runs on any CPU in seconds. A model is a folder or a name on the hub;
the text is one file, whose last tenth is held out. Needs accelerate, as transformers' Trainer does.

Prints, on the tiny model with --to, among the Trainer's own lines:

    loss, dense       0.788
    loss, pruned      0.800
    loss, fine-tuned  0.718
    0 of 14 layers broken; 40,960 pruned weights, 20,480 groups of 2:4
    0 of 14 layers broken; 40,960 pruned weights, 20,480 groups of 2:4
"""

import argparse
import tempfile
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM, Trainer, TrainingArguments

import prunelib

WORDS = 64  # of the tiny model


def main() -> None:
    """Run the example."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="a folder, or a name on the hub; default: a tiny random model")
    parser.add_argument("--text", type=Path, help="a text to calibrate and train on; needed with --model")
    parser.add_argument("--length", type=int, default=64, help="tokens of a window")
    parser.add_argument("--samples", type=int, default=16, help="windows to calibrate on")
    parser.add_argument("--pattern", default="2:4")
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--rate", type=float, default=3e-3)
    parser.add_argument("--to", type=Path, help="a new folder for the fine-tuned model")
    arguments = parser.parse_args()
    if (arguments.model is None) != (arguments.text is None):
        parser.error("--model and --text belong together")

    torch.manual_seed(0)
    model, tokens = tiny() if arguments.model is None else load(arguments.model, arguments.text)
    windows = tokens[: len(tokens) // arguments.length * arguments.length].view(-1, arguments.length)
    training, held_out = windows[: -len(windows) // 10], windows[-len(windows) // 10 :]
    if arguments.model is None:  # a random model has nothing to lose: let it learn first
        train(model, training, arguments.steps, arguments.rate, callbacks=[])
    print(f"loss, dense       {loss(model, held_out):.3f}")

    result = prunelib.prune(
        model, None, training[: arguments.samples], arguments.pattern, length=arguments.length, progress=False
    )
    print(f"loss, pruned      {loss(model, held_out):.3f}")

    train(model, training, arguments.steps, arguments.rate, callbacks=[prunelib.KeepMasks(result.masks)])
    print(f"loss, fine-tuned  {loss(model, held_out):.3f}")
    print(prunelib.verify(model, result.masks, arguments.pattern))

    if arguments.to:
        model.save_pretrained(arguments.to)
        if arguments.model:
            AutoTokenizer.from_pretrained(arguments.model).save_pretrained(arguments.to)
        result.save(arguments.to / "masks")
        print(prunelib.verify(arguments.to, arguments.to / "masks"))


def tiny() -> tuple[LlamaForCausalLM, torch.Tensor]:
    """Return a tiny random model, and tokens that it can learn: each word is mostly followed by the same other one."""
    config = LlamaConfig(
        vocab_size=WORDS,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=2048,
    )
    follower, tokens = torch.randperm(WORDS).tolist(), [0]
    for other in torch.randint(10 * WORDS, (16384,)).tolist():
        tokens.append(other if other < WORDS else follower[tokens[-1]])
    return LlamaForCausalLM(config), torch.tensor(tokens)


def load(name: str, text: Path) -> tuple[torch.nn.Module, torch.Tensor]:
    """Return a model, and the tokens of a text."""
    tokenizer = AutoTokenizer.from_pretrained(name)
    tokens = tokenizer(text.read_text(encoding="utf-8"), return_tensors="pt", verbose=False).input_ids[0]
    return AutoModelForCausalLM.from_pretrained(name), tokens


def train(model: torch.nn.Module, windows: torch.Tensor, steps: int, rate: float, callbacks: list) -> None:
    """Train a model on windows (windows, length) of tokens."""
    with tempfile.TemporaryDirectory() as scratch:
        settings = TrainingArguments(
            output_dir=scratch,
            max_steps=steps,
            per_device_train_batch_size=8,
            learning_rate=rate,
            weight_decay=0.1,
            max_grad_norm=1.0,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            dataloader_pin_memory=torch.cuda.is_available(),
        )
        data = [{"input_ids": window, "labels": window} for window in windows]
        Trainer(model, settings, train_dataset=data, callbacks=callbacks).train()


@torch.no_grad()
def loss(model: torch.nn.Module, windows: torch.Tensor) -> float:
    """Return the mean loss of next-token prediction over windows (windows, length) of tokens."""
    model.eval()
    losses = [float(model(each[None].to(model.device), labels=each[None].to(model.device)).loss) for each in windows]
    return sum(losses) / len(losses)


if __name__ == "__main__":
    main()
