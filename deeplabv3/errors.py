"""What can go wrong, as one small tree.

    DeepLabError
    |-- InputError            what a user typed or supplied; the command line exits with 2
    |   |-- DatasetError      a folder, an image, a label or a label set
    |   |-- CheckpointError   a file of weights: damaged, of another model, or not there
    |   |-- OutputError       a file or folder that cannot be written
    |   `-- DeviceMemoryError the memory of a device is too small for what was asked
    |-- NonFiniteError        a number of training became NaN or infinite; exits with 1
    `-- ProcessError          another process of the same work has ended; exits with 1
        `-- UnreachableError  the processes cannot find each other

Each message is one line: the value seen, what is allowed, the next step. An `assert` guards only
what no user can cause.
"""


class DeepLabError(Exception):
    """Anything this package raises on purpose."""


class InputError(DeepLabError):
    """A value, a path or a file that the user supplied cannot be used."""


class DatasetError(InputError):
    """A data set, or one file of it, cannot be used."""


class CheckpointError(InputError):
    """A file of weights is missing, damaged, or belongs to another model."""


class OutputError(InputError):
    """A file or a folder cannot be written; what was there before is untouched, unless the message says otherwise."""


class DeviceMemoryError(InputError):
    """The memory of a device is too small. Of several processes one alone may meet it, in the middle of a step."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory is too small.

    Of torch's errors only that of CUDA's allocator has a class of its own. Main memory, MPS, cuBLAS and oneDNN raise a
    RuntimeError; the texts are what they said under a limit (`ulimit -v`), or what their source says.
    """
    if isinstance(error, RuntimeError):
        return type(error).__name__ == "OutOfMemoryError" or any(text in str(error) for text in _OUT_OF_MEMORY)
    return isinstance(error, MemoryError)


_OUT_OF_MEMORY = (
    "DefaultCPUAllocator: can't allocate memory",
    "std::bad_alloc",
    "MPS backend out of memory",
    "CUDA error: out of memory",  # of a device that others fill, and of page-locked memory
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
    "ALLOCATION_FAILED",  # of cuDNN 9, on the device or the host
    "unable to find an engine to execute this computation",  # cuDNN, behind an error of memory that torch swallows
    "could not create a primitive",
    "could not execute a primitive",
)


class NonFiniteError(DeepLabError):
    """Training met a NaN or infinite value; nothing was written by the optimizer."""


class ProcessError(DeepLabError):
    """Another process that works on the same thing has ended."""


class UnreachableError(ProcessError):
    """The processes that should work together cannot reach each other. One alone may meet it."""


def printable(error: Exception | str, most: int = 300) -> str:
    """What another library says of a user's file, in one line of at most so many characters that can be printed."""
    line = "".join(letter if letter.isprintable() else "?" for letter in " ".join(str(error).split()))
    return line if len(line) <= most else f"{line[:most]}..."
