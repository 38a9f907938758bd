// Memory that several processes see: a memfd(2) whose size is sealed, so that nobody can make reading it a SIGBUS.

import CLinux
import Glibc
public import SystemPackage

/// A mapped segment. Never unmapped: what points into it lives as long as the process does.
public struct SharedMemory: @unchecked Sendable {
    public let base: UnsafeMutableRawPointer
    public let size: Int

    /// A segment of zeros whose size is sealed; map it with `init(mapping:)`, here and in children that inherit it.
    /// The C functions are `memfd_create`, `ftruncate` and `fcntl(F_ADD_SEALS)`.
    public static func create(name: String, size: Int) throws(Errno) -> Descriptor {
        let descriptor = Descriptor(owning: try check { tp_memfd_create(name) })
        let raw = descriptor.raw
        _ = try check { ftruncate(raw, off_t(size)) }
        _ = try check { tp_seal_size(raw) }
        return descriptor
    }

    /// Maps a segment that another process has made. The C functions are `fstat` and `mmap`.
    public init(mapping raw: Int32) throws(Errno) {
        var status = stat()
        _ = try check { fstat(raw, &status) }
        guard status.st_size > 0 else { throw .invalidArgument }
        size = Int(status.st_size)
        let address = mmap(nil, size, PROT_READ | PROT_WRITE, MAP_SHARED, raw, 0)
        guard let address, address != MAP_FAILED else { throw currentErrno() }
        base = address
    }

    /// A memfd that holds these bytes, to be read by a child. The C functions are `memfd_create` and `pwrite`.
    public static func file(name: String, holding bytes: [UInt8]) throws(Errno) -> Descriptor {
        let descriptor = Descriptor(owning: try check { tp_memfd_create(name) })
        let raw = descriptor.raw
        var written = 0
        while written < bytes.count {
            let offset = written
            written += try check {
                bytes[offset...].withUnsafeBytes { pwrite(raw, $0.baseAddress, $0.count, off_t(offset)) }
            }
        }
        return descriptor
    }

    /// The same, sealed: nobody can change it, so whoever gets it reads what we wrote. The C function is `fcntl(F_ADD_SEALS)`.
    public static func sealedFile(name: String, holding bytes: [UInt8]) throws(Errno) -> Descriptor {
        let descriptor = try file(name: name, holding: bytes)
        let raw = descriptor.raw
        _ = try check { tp_seal_contents(raw) }
        return descriptor
    }

    /// All bytes of a file of this kind, or a regular one, in one piece of memory of which no copies are left behind; EFBIG for
    /// more than `bytesMax`. Its offset stays. The C functions are `fstat` and `pread`.
    public static func wholeContents(of raw: Int32, bytesMax: Int) throws(Errno) -> [UInt8] {
        var status = stat()
        _ = try check { fstat(raw, &status) }
        guard status.st_size >= 0, status.st_size <= bytesMax else { throw .fileTooLarge }
        var bytes = [UInt8](repeating: 0, count: Int(status.st_size))
        var filled = 0
        while filled < bytes.count {
            let start = filled
            let count = try check {
                bytes.withUnsafeMutableBytes {
                    let rest = UnsafeMutableRawBufferPointer(rebasing: $0[start...])
                    return pread(raw, rest.baseAddress, rest.count, off_t(start))
                }
            }
            guard count > 0 else { throw .invalidArgument }
            filled += count
        }
        return bytes
    }

    /// All bytes of a file, refusing more than `bytesMax` (EFBIG). Its offset stays. The C function is `pread`.
    public static func contents(of raw: Int32, bytesMax: Int) throws(Errno) -> [UInt8] {
        var bytes: [UInt8] = []
        var buffer = [UInt8](repeating: 0, count: 16384)
        while true {
            let offset = off_t(bytes.count)
            let count = try check {
                buffer.withUnsafeMutableBytes { pread(raw, $0.baseAddress, $0.count, offset) }
            }
            if count == 0 { return bytes }
            bytes += buffer.prefix(count)
            if bytes.count > bytesMax { throw .fileTooLarge }
        }
    }
}
