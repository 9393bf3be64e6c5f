"""PECOS's label matrices: Y.trn.npz, a sparse matrix with a row for each line of X.trn.txt."""

import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from lsfa_jax.data.reading.compression import refuse_bomb
from lsfa_jax.util.console import UserError


def label_rows(path: Path) -> Iterator[list[str]]:
    """Yields the column numbers of the entries above 0 in each row of a matrix that scipy.sparse.save_npz wrote.

    Raises:
        UserError: the file is damaged or no such matrix.
    """
    # Imported late: it takes time and memory, and few files need it.
    from scipy import sparse

    try:
        with zipfile.ZipFile(path) as archive:
            refuse_bomb(str(path), sum(member.file_size for member in archive.infolist()), path.stat().st_size)
        # scipy loads without pickle.
        matrix = sparse.csr_array(sparse.load_npz(path))
        matrix.check_format(full_check=True)
    except (
        OSError,
        ValueError,
        KeyError,
        EOFError,
        TypeError,
        AttributeError,
        MemoryError,
        zipfile.BadZipFile,
    ) as error:
        raise UserError(
            f"{path}: is no sparse matrix that can be read ({error}). Expected what scipy.sparse.save_npz writes, or "
            "the labels of each text in a text file: one line a text, numbers separated by spaces."
        ) from None
    for start, stop in zip(matrix.indptr[:-1], matrix.indptr[1:], strict=True):
        columns, values = matrix.indices[start:stop], matrix.data[start:stop]
        yield [str(column) for column in np.sort(columns[values > 0]).tolist()]
