"""The command behind bin/export: a trained model for other systems."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from lsfa_jax.cli import common
from lsfa_jax.config import Section
from lsfa_jax.util import atomic, console
from lsfa_jax.util.console import UserError

if TYPE_CHECKING:
    from lsfa_jax.training.model_folder import TrainedModel

# Versions of jax2onnx after 0.13 ask for an older orbax-checkpoint, which could read no checkpoints of ours.
_FOR_ONNX = {"jax2onnx": "jax2onnx", "onnxruntime": "onnxruntime", "orbax.checkpoint": "'orbax-checkpoint>=0.12.8'"}
_ADVICE = "make room, or choose another --output"


class ExportArguments(Section):
    """Writes a trained model for other systems.

    Examples:
      bin/export --run runs/first --to stablehlo --output first-program    a program for JAX, and predict.py
      python first-program/predict.py texts.txt                            which needs nothing of this package
      bin/export --run runs/first --to onnx --output first-onnx            the same for ONNX Runtime
      bin/export --run runs/first --to huggingface --output first-card     the model with a model card for a hub

    Programs compute the network's probabilities alone: of a model that is fused with a linear one, the labels rank as
    by the network, not as by bin/predict. --to huggingface writes the whole model, for LSFA.from_pretrained.
    """

    run: str = Field(description="Folder of a finished bin/train, or of a model that LSFA.save wrote.")
    to: Literal["stablehlo", "onnx", "huggingface"] = Field(description="The format.")
    output: str = Field(description="Folder that is written; a new one, or an empty one.")


def parse(argv: list[str], prog: str = "bin/export") -> ExportArguments:
    """Reads a command line; raises UserError at an unknown option or a wrong value."""
    return common.parse(ExportArguments, argv, prog)


def export(arguments: ExportArguments, prog: str = "bin/export") -> None:
    """Writes the folder, whole or not at all.

    Raises:
        UserError: no model, a folder that is not empty or cannot be written, packages that are missing, or a model that
            the format cannot hold.
    """
    if arguments.to == "onnx":
        common.check_packages(f"{prog} --to onnx", "export", _FOR_ONNX)
    run, output = Path(arguments.run), Path(arguments.output)
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise UserError(f"--output {output}: expected a new or empty folder")
    # Imported late, so that --help and a wrong option answer at once.
    from lsfa_jax.training import model_folder
    from lsfa_jax.training.run_folder import RunFolder

    model, metrics = model_folder.read(run), RunFolder(run).read_metrics()
    common.warn_if_unfinished(run)
    with atomic.folder(output, advice=_ADVICE) as folder:
        if arguments.to == "huggingface":
            from lsfa_jax.serving.export import hugging_face

            hugging_face.write(folder, run, model, metrics)
        else:
            _write_programs(folder, arguments.to, model, metrics)
        # A temporary folder is closed to other users; what is exported is as readable as the folder around it.
        folder.chmod(0o755 & folder.parent.stat().st_mode)
        files = sorted(file for file in folder.rglob("*") if file.is_file())
        sizes = {file.relative_to(folder).as_posix(): file.stat().st_size for file in files}
    console.table(str(output), ["file", "kB"], [[name, f"{size / 1000:,.0f}"] for name, size in sizes.items()])
    if arguments.to == "huggingface":
        console.note(f'Load it: LSFA.from_pretrained("{output}"). Complete the card, {output / "README.md"}')
    else:
        console.note(f"Try it: echo 'some text' | {sys.executable} {output / 'predict.py'}")


def _write_programs(
    folder: Path, to: Literal["stablehlo", "onnx"], model: "TrainedModel", metrics: dict[str, Any]
) -> None:
    import jax

    from lsfa_jax.evaluation.thresholded import DEFAULT_THRESHOLD
    from lsfa_jax.serving.export import program_folder
    from lsfa_jax.training import results

    # Programs for other devices are traced as those for CPUs, which call no library of a device.
    jax.config.update("jax_platforms", "cpu")
    network = results.of_network(metrics, model.config.adjust.select)
    threshold = model.threshold if model.fusion is None else network.get("threshold", DEFAULT_THRESHOLD)
    if model.fusion is not None:
        console.warn(
            f"the program has the network without the linear model of the fused score{_loss(network, metrics)}"
        )
    program_folder.write(folder, model, threshold, to)


def _loss(network: dict[str, Any], metrics: dict[str, Any]) -> str:
    """Returns the test figures of the network alone and of the model, in words; "" where they are not known."""
    of_network, of_model = network.get("test", {}).get("N@5"), metrics.get("test", {}).get("N@5")
    if not of_network or not of_model or f"{of_network:.2f}" == f"{of_model:.2f}":
        return ""
    return f": N@5 {of_network:.2f} instead of {of_model:.2f} on test documents"


def main(argv: list[str] | None = None, prog: str = "bin/export") -> int:
    """Runs bin/export and returns its exit code, as `common.run` describes; messages name the command `prog`."""
    return common.run(lambda line: export(parse(line, prog), prog), argv)


if __name__ == "__main__":
    raise SystemExit(main())
