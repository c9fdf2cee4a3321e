"""What other packages offer no public way to do: each with the version in which it was seen."""

from typing import Any

# Key of .uns that marks minified cells. scvi-tools 1.5 has it in a private module only, and models look for it there.
MINIFY_TYPE = "_scvi_adata_minify_type"


def restart_epoch(checkpoint: dict[str, Any]) -> None:
    """Make a checkpoint that was taken at the start of an epoch begin this epoch.

    Lightning 2.6 still counts the batches of the epoch before in it, and would leave the epoch out.
    """
    counts = checkpoint["loops"]["fit_loop"]["epoch_loop.batch_progress"]
    counts |= {"current": dict.fromkeys(counts["current"], 0), "is_last_batch": False}
