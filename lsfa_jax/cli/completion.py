"""Shell completion of `lsfa`, its verbs and their options: tyro writes the script that a shell reads."""

from typing import Literal, get_args

from tyro.extras import SubcommandApp

from lsfa_jax.util.console import UserError

Shell = Literal["bash", "zsh", "fish"]


def write(argv: list[str]) -> None:
    """Writes the script, and ends the process with code 0.

    Args:
        argv: --tyro-print-completion SHELL, or --tyro-write-completion SHELL FILE.

    Raises:
        UserError: another option or shell.
    """
    length = {"--tyro-print-completion": 2, "--tyro-write-completion": 3}
    if length.get(argv[0]) != len(argv) or argv[1] not in get_args(Shell):
        raise UserError(
            f"{' '.join(argv)}: expected --tyro-write-completion SHELL FILE or --tyro-print-completion SHELL, with "
            f"SHELL one of {', '.join(get_args(Shell))}"
        )
    _app().cli(prog="lsfa", args=argv)


def _app() -> SubcommandApp:
    """Returns the verbs with the classes of their arguments."""
    from lsfa_jax.cli import data, evaluate, experiments, export, predict, serve, train, tune

    app, of_data = SubcommandApp(), SubcommandApp()
    app.command(name="train")(train.TrainArguments)
    app.command(name="predict")(predict.PredictArguments)
    app.command(name="evaluate")(evaluate.EvaluateArguments)
    app.command(name="serve")(serve.ServeArguments)
    app.command(name="tune")(tune.TuneArguments)
    app.command(name="export")(export.ExportArguments)
    app.command(name="experiments")(experiments.ExperimentsArguments)
    for name, arguments in data.COMMANDS.items():
        of_data.command(name=name)(arguments)
    app.command(of_data, name="data")
    return app
