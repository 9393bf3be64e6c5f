"""The command behind bin/experiments: runs plans and writes the pages that report them."""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro
from pydantic import Field

from lsfa_jax.cli import common
from lsfa_jax.config import Section, dataset_names, encoder_settings, nearest, read_toml
from lsfa_jax.util import interrupts
from lsfa_jax.util.console import UserError, note, plural

if TYPE_CHECKING:
    from lsfa_jax.experiments.execute import Base
    from lsfa_jax.experiments.plan import Plan


class ExperimentsArguments(Section):
    """Runs experiments over several seeds and reports them: tables and figures of the paper, rivals to its method.

    What is interrupted continues with the same command, and what is done is not repeated.

    Examples:
      bin/experiments list                                      the plans, a line each
      bin/experiments table3 --seeds 3                          RCV1 beside the paper's Table 3
      bin/experiments rivals --corpora rcv1                     the PVAE against simpler ways
      bin/experiments all --data-dir DIR                        all of them; DIR/aapd, DIR/eurlex4k hold corpora
      bin/experiments ablation --corpora synthetic              on the built-in corpus, to try it
    """

    plans: Annotated[tuple[str, ...], tyro.conf.Positional] = Field(
        (), description="Names of plans in configs/experiments, files of plans, or all; list prints the names."
    )
    seeds: int = Field(3, ge=1, description="Runs of each variant, with the seeds 0, 1, ...")
    preset: Literal["full", "quick"] = Field("quick", description="full: the paper's sizes; quick: for a laptop.")
    corpora: tuple[str, ...] = Field((), description="In place of those of the plans.")
    data_dir: str = Field(
        "",
        description="Folder of the corpus, or with a folder for each (DIR/aapd), of corpora that are not downloaded.",
    )
    encoder: str = Field("bilstm", description="bilstm (the paper's), cnn, minilm, or a transformer's folder.")
    config: str = Field("", description="Settings file for all runs, such as fewer epochs.")
    output: str = Field("runs/experiments", description="Folder of the runs.")
    pages: str = Field("", description="Folder of the pages, by default that of the runs.")
    save_every: float = Field(60.0, ge=0, description="Seconds between checkpoints within a stage.")
    report: bool = Field(False, description="Only write the pages again, from the runs that are done.")


def parse(argv: list[str], prog: str = "bin/experiments") -> ExperimentsArguments:
    """Reads the command line; raises UserError where it is wrong."""
    arguments = common.parse(ExperimentsArguments, argv, prog)
    for corpus in arguments.corpora:
        if corpus not in dataset_names():
            names = dataset_names()
            raise UserError(f"--corpora {corpus}: expected some of {', '.join(names)}{nearest(corpus, names)}")
    return arguments


def base(arguments: ExperimentsArguments) -> "Base":
    """Returns what all runs of a command share."""
    from lsfa_jax.experiments.execute import Base

    settings = read_toml(Path(arguments.config)) if arguments.config else {}
    if isinstance(encoder := settings.get("encoder"), str):  # as bin/train reads it
        settings["encoder"] = encoder_settings(encoder)
    return Base(
        output=Path(arguments.output),
        preset=arguments.preset,
        encoder=arguments.encoder,
        data_dir=arguments.data_dir,
        settings=settings,
        save_every=arguments.save_every,
    )


def experiments(arguments: ExperimentsArguments) -> None:
    """Runs the plans and writes their pages.

    Raises:
        UserError: a plan is wrong, or runs failed; those that did not are on the pages.
        Interrupted: after SIGINT or SIGTERM, with the state saved.
    """
    from lsfa_jax.data import named, pieces
    from lsfa_jax.experiments import execute, plan, report

    known = plan.names()
    if arguments.plans == ("list",):
        for name in known:
            note(f"{name:14}{plan.read(name).title}")
        return
    chosen = known if arguments.plans == ("all",) else arguments.plans
    if not chosen:
        raise UserError(f"expected plans to run: all, or some of {', '.join(known)}; see --help")
    plans = {Path(name).stem: plan.read(name) for name in chosen}
    _check_names(chosen, known)
    shared = base(arguments)

    def corpora(of: "Plan") -> tuple[str, ...]:
        return arguments.corpora or of.corpora

    needed = [run for of in plans.values() for run in execute.runs_of(of, shared, corpora(of), arguments.seeds)]
    execute.check_places(needed)
    failed: dict[str, str] = {}
    if not arguments.report:
        for corpus in sorted({corpus for of in plans.values() for corpus in corpora(of)}):
            named.check_data_dir(corpus, arguments.data_dir)
        if arguments.data_dir and not Path(arguments.data_dir).expanduser().exists():
            raise UserError(f"--data-dir {arguments.data_dir}: there is no such file or folder")
        if pretrained := encoder_settings(arguments.encoder)["pretrained"]:
            pieces.folder_of(pretrained)
        failed = execute.execute(needed)
    pages = Path(arguments.pages or arguments.output)
    for name, of in plans.items():
        report.write_page(pages / name, of, shared, corpora(of), arguments.seeds, failed)
    titles = {name: plan.read(name).title for name in known}
    report.write_index(pages, titles | {name: report.page_title(of, corpora(of)) for name, of in plans.items()})
    note(f"All experiments: {pages / 'index.html'}")
    if failed:
        errors = "; ".join(f"{title}: {error}" for title, error in failed.items())
        raise UserError(f"{plural(len(failed), 'run')} failed, the others are on the pages: {errors}")


def _check_names(chosen: Iterable[str], known: Iterable[str]) -> None:
    """Raises UserError where two files would write the same pages, as their names are equal, or one is a plan's."""
    from lsfa_jax.experiments import plan

    files = {name: plan.file_of(name) for name in known}
    for name in chosen:
        file = plan.file_of(name)
        if (first := files.setdefault(file.stem, file)).resolve() != file.resolve():
            raise UserError(f"{name}: has the name of {first}, and its pages would replace those; rename the file")


def _command(argv: list[str], prog: str) -> None:
    from lsfa_jax.util.malloc import keep_freed_memory

    keep_freed_memory()
    arguments = parse(argv, prog)
    from lsfa_jax.util import compilation_cache

    compilation_cache.keep_on_disk()
    with common.continued_by_the_same_command():
        experiments(arguments)


def main(argv: list[str] | None = None, prog: str = "bin/experiments") -> int:
    """Runs experiments; messages name the command `prog`.

    Returns:
        0 when done, 2 after a UserError, 130 or 143 after SIGINT or SIGTERM.
    """
    return common.run(lambda line: _command(line, prog), argv)


if __name__ == "__main__":
    interrupts.run_and_exit(main)
