"""Why the program that is there could not be run, in words. Loaded only when execve has failed."""

from errno import EACCES, ENOENT, ENOEXEC

from ociruntime.errors import StepError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ociruntime.shim.sync import Message

# e_machine of elf(5): what images are commonly built for
MACHINES = {
    2: "sparc",
    3: "x86",
    8: "mips",
    20: "ppc",
    21: "ppc64",
    22: "s390x",
    40: "arm",
    43: "sparc64",
    62: "x86_64",
    183: "aarch64",
    243: "riscv",
    258: "loongarch",
}


def failure(message: "Message", pointer: str) -> StepError:
    """The report of a failed execve. pointer: of the program's name.

    The init process says "interpreter" (detail: its name, a NUL, the program) or "machine" (value: e_machine) when it
    knows more than the kernel's errno. Source: man execve(2).
    """
    reason, path, hint = "cannot execute", message.detail, ""
    if message.call == "interpreter":
        name, _, path = message.detail.partition("\0")
        reason = f"its interpreter '{name}'"
        if message.errno == ENOENT:
            hint = "the program is there; what its #! line or its dynamic linking names is missing in the container"
        elif message.errno == EACCES:
            hint = "the interpreter may not be executed"
    elif message.call == "machine":
        machine = MACHINES.get(message.value, f"number {message.value}")
        reason, hint = f"built for another machine ({machine})", "use an image of this machine's architecture"
    elif message.errno == ENOEXEC:
        hint = "neither an ELF program nor a script with a #! line"
    elif message.errno == ENOENT:
        hint = "the program is there; its interpreter or dynamic loader is missing in the container"
    return StepError(reason, step="exec", pointer=pointer, path=path, errno=message.errno, hint=hint)
