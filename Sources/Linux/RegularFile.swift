// Files that are sent to clients or read by us.

import CLinux
import Glibc
public import SystemPackage

/// A regular file, opened with care: no FIFO, device or socket ever blocks or is answered with.
public struct RegularFile: ~Copyable {
    public let descriptor: Descriptor
    /// Its size in bytes when it was opened.
    public let size: UInt64

    /// Why a file is not sent.
    public enum Failure: Error, Equatable, Sendable {
        case system(Errno)
        case notRegular
    }

    /// Opens a file for reading. The C functions are `open` (with O_NONBLOCK, so that a FIFO cannot hold us) and `fstat`.
    public init(path: String) throws(Failure) {
        let raw = path.withCString { Glibc.open($0, O_RDONLY | O_NONBLOCK | O_CLOEXEC | O_NOCTTY) }
        guard raw >= 0 else { throw .system(currentErrno()) }
        try self.init(Descriptor(owning: raw))
    }

    /// Opens a file below a folder; EXDEV for a path that leads out of it. A slash at its front means the folder. The C functions
    /// are `openat2` (with RESOLVE_BENEATH) and `fstat`.
    public init(path: String, below folder: borrowing RootFolder) throws(Failure) {
        let raw = folder.open(path, O_RDONLY | O_NONBLOCK | O_NOCTTY)
        guard raw >= 0 else { throw .system(currentErrno()) }
        try self.init(Descriptor(owning: raw))
    }

    /// Takes over an open file; anything but a regular file is refused and closed. The C function is `fstat`.
    public init(_ descriptor: consuming Descriptor) throws(Failure) {
        var status = stat()
        guard fstat(descriptor.raw, &status) == 0 else { throw .system(currentErrno()) }
        guard status.st_mode & S_IFMT == S_IFREG else { throw .notRegular }
        self.descriptor = descriptor
        size = UInt64(clamping: status.st_size)
    }

    /// All bytes in one piece of memory, of which no copies are left behind; EFBIG for more than `bytesMax`. The C function
    /// is `pread`.
    public func contents(bytesMax: Int) throws(Failure) -> [UInt8] {
        do throws(Errno) {
            return try SharedMemory.wholeContents(of: descriptor.raw, bytesMax: bytesMax)
        } catch {
            throw .system(error)
        }
    }

    /// Reads a part of it. The C function is `pread`.
    public borrowing func read(
        into memory: UnsafeMutableRawPointer, count: Int, at offset: UInt64
    ) throws(Errno) -> Transfer {
        let raw = descriptor.raw
        return try transfer { pread(raw, memory, count, off_t(clamping: offset)) }
    }
}

/// A folder that files are looked for in, and nowhere else.
public struct RootFolder: ~Copyable {
    private let descriptor: Descriptor

    /// Opens a folder; ENOTDIR for anything else, ENOSYS where the kernel is older than Linux 5.6. The C functions are `open` and
    /// `openat2`.
    public init(path: String) throws(Errno) {
        let raw = path.withCString { Glibc.open($0, O_RDONLY | O_DIRECTORY | O_CLOEXEC) }
        guard raw >= 0 else { throw currentErrno() }
        let folder = Descriptor(owning: raw)
        _ = Descriptor(owning: try check { Self.open("", O_RDONLY | O_DIRECTORY, below: raw) })
        descriptor = folder
    }

    /// A raw descriptor, or -1 and errno.
    fileprivate func open(_ path: String, _ flags: Int32) -> Int32 { Self.open(path, flags, below: descriptor.raw) }

    private static func open(_ path: String, _ flags: Int32, below folder: Int32) -> Int32 {
        let below = path.drop { $0 == "/" }
        return (below.isEmpty ? "." : String(below)).withCString { tp_open_beneath(folder, $0, flags) }
    }
}
