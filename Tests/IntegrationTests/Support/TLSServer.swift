// A TLS server in Python that a test starts as a remote, and what it says of its connections.

import Foundation

/// A running `Helpers/tls_server.py`.
final class TLSServer: Sendable {
    let process: Subprocess
    let port: UInt16

    /// `options` are the helper's: `do=cut`, `alpn=h2`.
    init(_ pair: Certificates.Pair, _ options: String...) throws {
        process = try Subprocess(
            ["python3", "-S", "-u", Repository.helper("tls_server.py"), pair.certificate, pair.key] + options)
        let line = try process.line(with: "port ")
        guard let port = line.split(separator: " ").last.flatMap({ UInt16($0) }) else { throw Failure(line) }
        self.port = port
    }

    var address: String { "127.0.0.1:\(port)" }
    /// A name for the same: both stand in the certificates that `Certificates.leaf` makes.
    var named: String { "localhost:\(port)" }

    /// What it said of a handshake.
    struct Greeting: Decodable, Equatable {
        var sni: String?
        var version: String
        var cipher: String
        var alpn: String?
        var reused: Bool
        var client: String?
        var header: String?
    }

    /// What it said of a connection's end.
    struct End: Decodable, Equatable {
        /// `end` in order, else what was wrong.
        var ended: String
        /// Bytes of the peer's.
        var got: Int
        var text: String?
    }

    private func told<Word: Decodable>(_ type: Word.Type, _ lines: [String]) -> [Word] {
        lines.compactMap { try? JSONDecoder().decode(type, from: Data($0.utf8)) }
    }

    /// Its words on the n-th handshake that was done.
    @discardableResult
    func greeting(_ number: Int = 1) throws -> Greeting {
        try process.wait(for: "handshake \(number)") { lines in
            let all = told(Greeting.self, lines)
            return all.count >= number ? all[number - 1] : nil
        }
    }

    /// Its words on the n-th connection that has ended.
    @discardableResult
    func end(_ number: Int = 1) throws -> End {
        try process.wait(for: "end \(number)") { lines in
            let all = told(End.self, lines)
            return all.count >= number ? all[number - 1] : nil
        }
    }

    /// How many handshakes were done so far.
    var greetings: Int { told(Greeting.self, process.lines).count }
}
