// What is written to a router that is slow to read, up to the end of its input.

import Glibc
import Linux
import SystemPackage
import Testing

@testable import Proxy

@Suite struct RouterLinkTests {
    /// A router that somebody else runs: its listener, at a path of its own.
    private final class Listener {
        let path: String
        private let folder: String
        private let socket: Descriptor

        init() throws {
            var template = Array("/tmp/tproxy-test-XXXXXX".utf8CString)
            mkdtemp(&template)
            folder = String(decoding: template.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)
            path = folder + "/route.sock"
            socket = try Socket.open(family: AF_UNIX)
            try Socket.bind(socket, to: .unix(path))
            try Socket.listen(socket, backlog: 1)
        }

        func accept() throws -> Descriptor {
            guard let accepted = try Socket.accept(socket.raw) else { throw Errno.wouldBlock }
            return accepted.take()
        }

        deinit {
            unlink(path)
            rmdir(folder)
        }
    }

    /// How much there is to read now, and whether it has ended.
    private func read(_ raw: Int32) -> (count: Int, hasEnded: Bool) {
        var buffer = [UInt8](repeating: 0, count: 1 << 18)
        var count = 0
        while true {
            let more = recv(raw, &buffer, buffer.count, Int32(MSG_DONTWAIT))
            guard more > 0 else { return (count, more == 0) }
            count += more
        }
    }

    @Test("a router's input ends behind all that was to be written to it, however late it reads")
    func inputEndsLast() throws {
        let listener = try Listener()
        var link = try RouterLink(r(1), generation: 1, path: listener.path)
        let router = try listener.accept()
        let line = [UInt8](repeating: UInt8(ascii: "a"), count: 4_000_000)
        link.write { $0 += line }
        try link.flush()
        let isBlocked = link.isBlocked
        #expect(isBlocked)
        link.endInput()
        var total = 0
        while link.hasOutgoing {
            let (count, hasEnded) = read(router.raw)
            try #require(count > 0 && !hasEnded, "after \(total) bytes")
            total += count
            try link.flush()
        }
        let (count, hasEnded) = read(router.raw)
        #expect(total + count == line.count && hasEnded)
    }

    @Test("what cannot be written any more is dropped, and nothing waits for room then")
    func brokenPipe() throws {
        let listener = try Listener()
        var link = try RouterLink(r(1), generation: 1, path: listener.path)
        let router = try listener.accept()
        link.write { $0 += [UInt8](repeating: UInt8(ascii: "a"), count: 4_000_000) }
        try link.flush()
        let isBlocked = link.isBlocked
        #expect(isBlocked)
        shutdown(router.raw, Int32(SHUT_RD))
        _ = read(router.raw)
        var failure: Errno?
        do throws(Errno) { try link.flush() } catch { failure = error }
        #expect(failure == .brokenPipe)
        let waits = link.isBlocked || link.hasOutgoing
        #expect(!waits)
    }
}
