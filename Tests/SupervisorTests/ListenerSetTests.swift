import Addressing
import Glibc
import Linux
import SystemPackage
import Testing

@testable import Supervisor

// One after the other: the file mode mask is the whole process's.
@Suite("Listeners", .serialized)
struct ListenerSetTests {
    /// A folder of its own for each test.
    final class Folder {
        let path: String
        init() throws {
            var template = Array("/tmp/tproxy-listeners-XXXXXX".utf8CString)
            guard mkdtemp(&template) != nil else { throw Errno(rawValue: errno) }
            path = String(decoding: template.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)
        }
        deinit {
            unlink(path + "/socket")
            rmdir(path)
        }
        var socket: BindAddress { .unix(path: path + "/socket", mode: 0o620) }
    }

    static func bind(_ addresses: [BindAddress]) throws -> ListenerSet {
        try #require(try ListenerSet.bind(addresses, backlog: 16) { _ in false })
    }

    static func connect(to address: SocketAddress) throws -> Descriptor {
        let descriptor = try Socket.open(family: address.family)
        _ = try Socket.connect(descriptor, to: address)
        return descriptor
    }

    @Test("the kernel's choice of a port is told, in order", arguments: ["127.0.0.1:0", "localhost:0", "[::1]:0"])
    func ports(_ text: String) throws {
        let address = try #require(BindAddress(text))
        let set = try Self.bind([address, address])
        #expect(set.listeners.map(\.bind) == [address, address])
        let host = text.hasPrefix("[") ? "[::1]:" : "127.0.0.1:"
        for listener in set.listeners {
            #expect(listener.address.hasPrefix(host))
            #expect(!listener.address.hasSuffix(":0"))
            _ = try Self.connect(to: try Socket.localAddress(listener.descriptor.raw))
        }
        #expect(Set(set.listeners.map(\.address)).count == 2)
    }

    @Test("what is accepted sends at once and finds out about peers that vanished")
    func inherited() throws {
        let set = try Self.bind([.ipv4(.loopback, port: 0)])
        let raw = set.listeners[0].descriptor.raw
        let client = try Self.connect(to: try Socket.localAddress(raw))
        guard let accepted = try Socket.accept(raw)?.take() else {
            Issue.record("nobody to accept")
            return
        }
        for (level, name) in [(Int32(IPPROTO_TCP), TCP_NODELAY), (SOL_SOCKET, SO_KEEPALIVE)] {
            var value: Int32 = 0
            var length = socklen_t(4)
            #expect(getsockopt(accepted.raw, level, name, &value, &length) == 0)
            #expect(value == 1)
        }
        withExtendedLifetime(client.raw) {}
    }

    @Test("an IPv6 listener leaves IPv4 to others")
    func onlyIPv6() throws {
        let six = try Self.bind([.ipv6(.any, port: 0)])
        guard case .ipv6(_, let port) = try Socket.localAddress(six.listeners[0].descriptor.raw) else {
            Issue.record("not an IPv6 address")
            return
        }
        _ = try Self.bind([.ipv4(.any, port: port)])
    }

    @Test("an address in use is tried again a few times, then refused by name")
    func inUse() throws {
        let first = try Self.bind([.ipv4(.loopback, port: 0)])
        let taken = try #require(BindAddress(first.listeners[0].address))
        var pauses = 0
        #expect(throws: ListenError.system(taken, .addressInUse)) {
            try ListenerSet.bind([.ipv4(.loopback, port: 0), taken], backlog: 1) { _ in
                pauses += 1
                return true
            }
        }
        #expect(pauses == 4)
        #expect(try ListenerSet.bind([taken], backlog: 1) { _ in false } == nil)
    }

    @Test("a Unix socket has its permissions, and its file goes with the listener")
    func unix() throws {
        let folder = try Folder()
        var set = try Self.bind([folder.socket])
        var status = stat()
        #expect(lstat(folder.path + "/socket", &status) == 0)
        #expect(status.st_mode & 0o7777 == 0o620)
        #expect(set.listeners[0].address == "unix:\(folder.path)/socket")
        set.close()
        #expect(lstat(folder.path + "/socket", &status) != 0)
    }

    @Test("the file of a socket that nobody listens on is replaced, a live one is left alone")
    func stale() throws {
        let folder = try Folder()
        let path = folder.path + "/socket"
        do {
            let dead = try Socket.open(family: AF_UNIX)
            try Socket.bind(dead, to: .unix(path))
        }
        #expect(try UnixSocketFile.state(of: path) == .stale)
        var first = try Self.bind([folder.socket])
        #expect(try UnixSocketFile.state(of: path) == .alive)
        #expect(throws: ListenError.answered(folder.socket)) {
            try ListenerSet.bind([folder.socket], backlog: 1) { _ in true }
        }
        _ = try Self.connect(to: .unix(path))
        // Somebody else's socket under the same name survives ours.
        unlink(path)
        let second = try Self.bind([folder.socket])
        first.close()
        #expect(try UnixSocketFile.state(of: path) == .alive)
        withExtendedLifetime(second.listeners) {}
    }

    @Test("a file that is no socket is never removed")
    func otherFile() throws {
        let folder = try Folder()
        _ = Descriptor(owning: open(folder.path + "/socket", O_CREAT | O_WRONLY, 0o600))
        #expect(throws: ListenError.notASocket(folder.socket)) {
            try ListenerSet.bind([folder.socket], backlog: 1) { _ in true }
        }
        #expect(access(folder.path + "/socket", F_OK) == 0)
    }

    @Test("an inherited descriptor has to be a listening stream socket")
    func descriptors() throws {
        let given = try Self.bind([.ipv4(.loopback, port: 0)])
        // The set takes over the number it is given.
        let copy = dup(given.listeners[0].descriptor.raw)
        let set = try Self.bind([.descriptor(copy)])
        #expect(set.listeners[0].address == given.listeners[0].address)
        #expect(fcntl(copy, F_GETFD) & FD_CLOEXEC != 0)
        #expect(fcntl(copy, F_GETFL) & O_NONBLOCK != 0)
        let unbound = try Socket.open(family: AF_INET)
        let file = Descriptor(owning: open("/dev/null", O_RDONLY))
        for raw in [unbound.raw, file.raw, 987] {
            #expect(throws: ListenError.notAListener(.descriptor(raw))) { try Self.bind([.descriptor(raw)]) }
        }
    }

    @Test("what cannot be bound is refused with the address and the reason")
    func refused() throws {
        let elsewhere = try #require(BindAddress("192.0.2.1:0"))
        #expect(throws: ListenError.system(elsewhere, .addressNotAvailable)) { try Self.bind([elsewhere]) }
        #expect(
            ListenError.system(elsewhere, .addressNotAvailable).description.hasPrefix("cannot listen on 192.0.2.1:0: "))
        #expect(throws: ListenError.system(.unix(path: "/no/such/folder/x", mode: 0o600), .noSuchFileOrDirectory)) {
            try Self.bind([.unix(path: "/no/such/folder/x", mode: 0o600)])
        }
    }
}
