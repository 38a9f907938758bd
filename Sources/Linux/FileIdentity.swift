// Names a file itself, whatever its path is by now.

import Glibc

/// A file as it is now, so that another one at the same path is not taken for it.
public struct FileIdentity: Hashable, Sendable, LosslessStringConvertible {
    private let device: UInt64
    private let number: UInt64

    private init(_ status: stat) {
        device = UInt64(status.st_dev)
        number = UInt64(status.st_ino)
    }

    /// What is at a path, a symbolic link itself included; nil when there is nothing. The C function is `lstat`.
    public init?(path: String) {
        var status = stat()
        guard lstat(path, &status) == 0 else { return nil }
        self.init(status)
    }

    /// What a path leads to; nil when that is nothing. The C function is `stat`.
    public init?(following path: String) {
        var status = stat()
        guard stat(path, &status) == 0 else { return nil }
        self.init(status)
    }

    /// What an open descriptor is of. The C function is `fstat`.
    public init?(_ descriptor: borrowing Descriptor) {
        var status = stat()
        guard fstat(descriptor.raw, &status) == 0 else { return nil }
        self.init(status)
    }

    /// Reads what `description` writes.
    public init?(_ description: String) {
        let parts = description.split(separator: ":", omittingEmptySubsequences: false)
        guard parts.count == 2, let device = UInt64(parts[0]), let number = UInt64(parts[1]) else { return nil }
        (self.device, self.number) = (device, number)
    }

    public var description: String { "\(device):\(number)" }
}
