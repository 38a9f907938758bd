// A file descriptor with one owner.

import CLinux
import Glibc

/// An open file descriptor that is closed when its owner lets go of it.
public struct Descriptor: ~Copyable, Sendable {
    /// The number, for system calls that borrow it.
    public let raw: Int32

    /// Takes over a number that nobody else will close.
    public init(owning raw: Int32) {
        precondition(raw >= 0, "a descriptor is never negative")
        self.raw = raw
    }

    /// Gives the number away: the caller closes it.
    public consuming func release() -> Int32 {
        let raw = self.raw
        discard self
        return raw
    }

    deinit {
        // EINTR is not repeated: on Linux the descriptor is gone whatever close(2) says.
        _ = Glibc.close(raw)
    }
}
