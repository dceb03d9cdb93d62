"""The field's vector files, read in pieces: a file of any size costs no memory of its own.

  .npy                     numpy: two dimensions; float16/32/64, int8, uint8; C or Fortran order
  .fvecs .bvecs            every row: int32 dim, then dim float32 or uint8
  .fbin .u8bin .i8bin      int32 rows, int32 dim, then rows x dim float32, uint8 or int8
  .hdf5 .h5                ann-benchmarks: train, test, neighbors (needs h5py)
  .ivecs .ibin             neighbours: for each query the row numbers of the nearest, nearest first;
                           .ibin may hold rows x k float32 distances behind them
  any of these (not HDF5) with .gz behind it

Everything is little-endian. What is not float32 is converted to it, piece by piece. A .gz is
unpacked to an unnamed temporary file first, so that its checksum is known to be right, and any
piece can be read again, before a row is used. Failure: WrongFile, with a sentence.
"""

import gzip
import math
import mmap
import os
import tempfile
import zlib
from pathlib import Path

from .numeric import np

BLOCK_BYTES = 4 << 20
DIM_MAX = 65536
DTYPES = ("float16", "float32", "float64", "int8", "uint8")
ROW_FORMATS = {".fvecs": "<f4", ".bvecs": "u1"}
HEADED_FORMATS = {".fbin": "<f4", ".u8bin": "u1", ".i8bin": "i1"}
HDF5 = (".hdf5", ".h5")
NEIGHBOURS = (".ivecs", ".ibin")
VECTORS = (".npy", *ROW_FORMATS, *HEADED_FORMATS, *HDF5)
HDF5_METRICS = {"euclidean": "l2", "angular": "cosine", "dot": "ip", "ip": "ip"}


class WrongFile(Exception):
    """A sentence that says what is wrong with which file."""


def suffix(path):
    """The format's suffix, without .gz."""
    path = Path(path)
    return Path(path.stem).suffix.lower() if path.suffix.lower() == ".gz" else path.suffix.lower()


class Vectors:
    """rows x dim numbers; read() gives any run of rows as float32."""

    def __init__(self, path, array, stored, metric=None):
        self.path, self.array, self.stored, self.metric = path, array, stored, metric
        self.rows, self.dim = array.shape
        if not 1 <= self.dim <= DIM_MAX:
            raise WrongFile(f"{path}: {self.dim} dimensions; Loadstone takes 1 to {DIM_MAX:,}")
        if self.rows == 0:
            raise WrongFile(f"{path}: it holds no rows")

    def read(self, first, end):
        """Rows first ... end - 1, C-contiguous float32; without a copy where the file has that."""
        with np.errstate(over="ignore"):
            return np.ascontiguousarray(self.array[first:end], "<f4")


class RowVectors(Vectors):
    """fvecs and bvecs: each row repeats the dimension, and must repeat it rightly."""

    def __init__(self, path, records, stored):
        self.dims = records["dim"]
        super().__init__(path, records["row"], stored)

    def read(self, first, end):
        check_dims(self.path, self.dims, first, end)
        return super().read(first, end)


def check_dims(path, dims, first, end):
    wrong = np.flatnonzero(dims[first:end] != dims[0])
    if len(wrong):
        row = first + int(wrong[0])
        raise WrongFile(
            f"{path}: row {row:,} says {dims[row]} dimensions, the first row said {dims[0]}: "
            "the file is damaged or rows of different lengths were joined"
        )


# ---- the bytes of a file ----


def map_file(path, tell=None):
    """The file's bytes, unpacked when it is a .gz; `tell(bytes)` hears how much of that
    is read."""
    try:
        if Path(path).suffix.lower() == ".gz":
            with tempfile.TemporaryFile() as unpacked:
                _unpack(path, unpacked, tell)
                return _map(path, unpacked)
        with open(path, "rb") as f:
            return _map(path, f)
    except IsADirectoryError as e:
        raise WrongFile(f"{path} is a directory: name a file in it") from e


def _map(path, file):
    if os.fstat(file.fileno()).st_size == 0:
        raise WrongFile(f"{path}: it is empty")
    return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


def _unpack(path, out, tell):
    try:
        with open(path, "rb") as packed, gzip.GzipFile(fileobj=packed) as stream:
            while block := stream.read(BLOCK_BYTES):
                out.write(block)
                if tell:
                    tell(packed.tell())
    except (EOFError, gzip.BadGzipFile, zlib.error) as e:
        raise WrongFile(f"{path}: it is no whole .gz file ({e}): fetch it again") from e
    out.flush()


def _array(data, dtype, shape, offset=0, order="C"):
    flat = np.frombuffer(data, dtype, math.prod(shape), offset)
    return flat.reshape(shape, order=order)


# ---- one function a format ----


def _read_npy(path, data):
    file = _Bytes(data)
    try:
        version = np.lib.format.read_magic(file)
        reader = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,
        }[version]
        shape, fortran, dtype = reader(file)
    except KeyError as e:
        raise WrongFile(f"{path}: npy format {version[0]}.{version[1]} is not known here") from e
    except (ValueError, OSError, EOFError) as e:
        raise WrongFile(f"{path}: it is no npy file ({e})") from e
    if len(shape) != 2:
        raise WrongFile(f"{path}: its shape is {shape}; vectors need two dimensions (rows, dim)")
    size = file.at + math.prod(shape) * dtype.itemsize
    if size != len(data) and not dtype.hasobject:
        raise WrongFile(
            f"{path}: its header promises {shape[0]:,} x {shape[1]:,} {dtype} and so {size:,} "
            f"bytes; it has {len(data):,}"
        )
    return shape, fortran, dtype, file.at


class _Bytes:
    """As much of a file as numpy's header reader wants; never a copy of the whole map."""

    def __init__(self, data):
        self.data, self.at = data, 0

    def read(self, n):
        piece = self.data[self.at : self.at + n]
        self.at += len(piece)
        return piece


def _open_npy(path, data):
    shape, fortran, dtype, offset = _read_npy(path, data)
    if dtype.name not in DTYPES:
        raise WrongFile(
            f"{path}: it holds {dtype}; vectors are {', '.join(DTYPES)}: convert it with "
            "array.astype('float32')"
        )
    return Vectors(path, _array(data, dtype, shape, offset, "F" if fortran else "C"), dtype.name)


def _records(path, data, dtype):
    """Rows that begin with their int32 length, as a structured array (dim, row)."""
    width = np.dtype(dtype).itemsize
    dim = int.from_bytes(data[:4], "little", signed=True) if len(data) >= 4 else -1
    row_bytes = 4 + dim * width
    if not 1 <= dim <= DIM_MAX:
        raise WrongFile(f"{path}: it begins with {dim} as the length of its rows: no such file")
    if len(data) % row_bytes:
        raise WrongFile(
            f"{path}: {len(data):,} bytes are {len(data) // row_bytes:,} rows of {dim} and "
            f"{len(data) % row_bytes:,} bytes more: it is truncated, or of another format"
        )
    record = np.dtype([("dim", "<i4"), ("row", dtype, (dim,))])
    return np.frombuffer(data, record)


def _head(path, data):
    """rows and columns of a file that begins with them."""
    if len(data) < 8:
        raise WrongFile(f"{path}: {len(data)} bytes can't hold the two counts it begins with")
    return tuple(int(x) for x in np.frombuffer(data, "<u4", 2))


def _open_headed(path, data, dtype):
    rows, dim = _head(path, data)
    size = 8 + rows * dim * np.dtype(dtype).itemsize
    if size != len(data):
        raise WrongFile(
            f"{path}: its header promises {rows:,} rows of {dim:,} and so {size:,} bytes; it has "
            f"{len(data):,}: it is truncated, or of another format"
        )
    return Vectors(path, _array(data, dtype, (rows, dim), 8), np.dtype(dtype).name)


def _open_hdf5(path):
    try:
        import h5py
    except ImportError as e:
        raise WrongFile(
            f"{path}: HDF5 needs h5py: apt-get install python3-h5py, or pip install h5py"
        ) from e
    try:
        return h5py.File(path, "r")
    except FileNotFoundError:
        raise
    except OSError as e:
        raise WrongFile(f"{path}: it is no HDF5 file ({e})") from e


def _hdf5_set(path, file, name):
    if name not in file:
        raise WrongFile(f"{path}: it has no dataset {name}; it has {', '.join(file) or 'none'}")
    found = file[name]
    if getattr(found, "ndim", 0) != 2:
        raise WrongFile(f"{path}: {name} has not two dimensions (rows, dim)")
    return found


def _open_hdf5_vectors(path, name):
    file = _open_hdf5(path)
    found = _hdf5_set(path, file, name)
    if found.dtype.name not in DTYPES:
        raise WrongFile(f"{path}: {name} holds {found.dtype}, no kind of vector that is known here")
    distance = file.attrs.get("distance")
    distance = distance.decode() if isinstance(distance, bytes) else distance
    if distance is not None and distance not in HDF5_METRICS:
        raise WrongFile(f"{path}: its distance is {distance}; Loadstone has l2, cosine and ip")
    return Vectors(path, found, found.dtype.name, HDF5_METRICS.get(distance))


# ---- the two entrances ----


def open_vectors(path, dataset="train", tell=None, also=()):
    """Vectors of any of the formats; `dataset` names the one inside an HDF5 file, `also` what else
    the caller reads."""
    kind = suffix(path)
    if kind in NEIGHBOURS:
        raise WrongFile(
            f"{path} holds row numbers of neighbours, no vectors: it is for "
            "recall_latency.py --truth"
        )
    if kind not in VECTORS:
        raise WrongFile(
            f"{path}: name a file that ends in {', '.join((*VECTORS, *also))}, or in one of these "
            "(not HDF5) and .gz"
        )
    if kind in HDF5:
        return _open_hdf5_vectors(path, dataset)
    data = map_file(path, tell)
    if kind == ".npy":
        return _open_npy(path, data)
    if kind in ROW_FORMATS:
        dtype = ROW_FORMATS[kind]
        return RowVectors(path, _records(path, data, dtype), np.dtype(dtype).name)
    return _open_headed(path, data, HEADED_FORMATS[kind])


def open_neighbours(path, dataset="neighbors"):
    """For each query the row numbers of its nearest, as an integer array (queries, k)."""
    kind = suffix(path)
    if kind in HDF5:
        return np.asarray(_hdf5_set(path, _open_hdf5(path), dataset))
    if kind == ".npy":
        data = map_file(path)
        shape, fortran, dtype, offset = _read_npy(path, data)
        if dtype.kind not in "iu":
            raise WrongFile(f"{path}: it holds {dtype}; row numbers are integers")
        return _array(data, dtype, shape, offset, "F" if fortran else "C")
    if kind == ".ivecs":
        records = _records(path, map_file(path), "<i4")
        check_dims(path, records["dim"], 0, len(records))
        return records["row"]
    if kind != ".ibin":
        raise WrongFile(f"{path}: neighbours come as .ibin, .ivecs, .npy or HDF5")
    data = map_file(path)
    rows, k = _head(path, data)
    if len(data) not in (8 + rows * k * 4, 8 + rows * k * 8):
        raise WrongFile(
            f"{path}: its header promises {rows:,} x {k:,} row numbers and so {8 + rows * k * 4:,} "
            f"bytes (or with as many distances {8 + rows * k * 8:,}); it has {len(data):,}"
        )
    return _array(data, "<i4", (rows, k), 8)
