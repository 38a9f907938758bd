// Pipes, and the calls that move bytes without copying them through our memory.

import CLinux
import Glibc
public import SystemPackage

/// A kernel pipe for splice(2): both ends non-blocking.
public struct Pipe: ~Copyable {
    public let readEnd: Descriptor
    public let writeEnd: Descriptor
    /// What the kernel said it holds. Nominal: bytes in flight may be more, for it counts pages.
    public let size: Int

    /// Opens a pipe and asks for a size. Above a per-user limit the kernel gives less (pipe(7)): look at `size`.
    /// The C functions are `pipe2` and `fcntl(F_SETPIPE_SZ)`.
    public init(wantedSize: Int) throws(Errno) {
        var raw: (Int32, Int32) = (-1, -1)
        _ = try withUnsafeMutableBytes(of: &raw) { (bytes) throws(Errno) in
            try check { pipe2(bytes.bindMemory(to: Int32.self).baseAddress, O_NONBLOCK | O_CLOEXEC) }
        }
        readEnd = Descriptor(owning: raw.0)
        writeEnd = Descriptor(owning: raw.1)
        _ = fcntl(raw.1, Int32(TP_F_SETPIPE_SZ), Int32(clamping: wantedSize))
        size = max(0, Int(fcntl(raw.1, Int32(TP_F_GETPIPE_SZ))))
    }

    /// Reads from the reading end of a pipe. The C function is `read`.
    public static func read(_ raw: Int32, into memory: UnsafeMutableRawPointer, count: Int) throws(Errno) -> Transfer {
        try transfer { Glibc.read(raw, memory, count) }
    }

    /// Gives both numbers away: the caller closes them.
    public consuming func release() -> (read: Int32, write: Int32) {
        (readEnd.release(), writeEnd.release())
    }
}

/// Calls that move bytes between descriptors inside the kernel.
public enum Splice {
    private static let flags = UInt32(TP_SPLICE_F_MOVE | TP_SPLICE_F_NONBLOCK)

    /// Moves bytes from one descriptor to another, one of them a pipe. The C function is `splice`.
    @inline(__always)
    public static func move(from source: Int32, to target: Int32, count: Int) throws(Errno) -> Transfer {
        try transfer { splice(source, nil, target, nil, count, flags) }
    }

    /// Sends a part of a file and advances `offset`. The C function is `sendfile`; its 0 means the file has ended.
    public static func sendFile(
        _ file: borrowing Descriptor, to socket: Int32, offset: inout UInt64, count: Int
    ) throws(Errno) -> Transfer {
        var position = off_t(clamping: offset)
        let raw = file.raw
        let result = try transfer { sendfile(socket, raw, &position, count) }
        offset = UInt64(clamping: position)
        return result
    }
}
