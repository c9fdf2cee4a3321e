"""The treatment of the toy cells."""

TREATMENT = ("condition", "condition 0", "condition 1", "cluster")


def rows(adata, cell_type, condition):
    """Which cells are of a type and under a condition."""
    return ((adata.obs["cluster"] == cell_type) & (adata.obs["condition"] == condition)).to_numpy()
