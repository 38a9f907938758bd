import Glibc
import Testing

/// A file without a name, gone with its last user.
final class MemoryFile {
    private let descriptor: Int32

    init(_ bytes: [UInt8]) throws {
        var name = Array("/tmp/tproxy-test-XXXXXX".utf8CString)
        descriptor = mkstemp(&name)
        try #require(descriptor >= 0)
        unlink(name)
        try #require(write(descriptor, bytes, bytes.count) == bytes.count)
    }

    deinit { close(descriptor) }

    var path: String { "/proc/self/fd/\(descriptor)" }
}
