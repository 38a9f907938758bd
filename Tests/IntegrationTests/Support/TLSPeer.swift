// TLS peers of tproxy's, clients and remotes, that take steps and say what they saw: Helpers/tls_peer.py.

import Foundation

/// A line of tls_peer.py.
struct Seen: Decodable, Equatable {
    var port: UInt16?
    var sni: String?
    var peer: String?
    var reused: Bool?
    var alpn: String?
    var version: String?
    var cipher: String?
    var names: [String]?
    var fingerprint: String?
    var recv: String?
    var both: Int?
    var same: Bool?
    var all: String?
    var count: Int?
    var sha256: String?
    /// end: by close_notify; cut: without one; reset; or "error: " and OpenSSL's complaint.
    var ending: String?

    static func of(_ lines: [String]) -> [Seen] {
        lines.compactMap { try? JSONDecoder().decode(Seen.self, from: Data($0.utf8)) }
    }
}

/// TLS clients.
enum TLSClient {
    /// Connects, takes the steps one after the other, and is gone; what it saw.
    static func run(
        _ port: UInt16, _ steps: [String], options: [String] = [], within time: Double = 60
    ) throws -> [Seen] {
        let (status, text) = try Subprocess.run(
            ["python3", "-S", Repository.helper("tls_peer.py"), "client"] + options + ["\(port)"] + steps, within: time)
        let seen = Seen.of(text.split(separator: "\n").map(String.init))
        guard status == 0 else { throw Failure("the TLS client failed: \(text)") }
        return seen
    }

    /// The same beside the test.
    static func start(_ port: UInt16, _ steps: [String], options: [String] = []) throws -> Subprocess {
        try Subprocess(
            ["python3", "-S", Repository.helper("tls_peer.py"), "client"] + options + ["\(port)"] + steps)
    }
}

/// A TLS remote: every connection takes the same steps.
final class TLSOrigin: Sendable {
    let process: Subprocess
    let port: UInt16
    var address: String { "127.0.0.1:\(port)" }

    /// `options` of tls_peer.py; without `certificate` it uses that of the pair.
    init(_ pair: Certificates.Pair, in certificates: Certificates, _ steps: [String], options: [String] = []) throws {
        let file = try certificates.joined(
            "origin-\(UInt32.random(in: 0 ... .max)).pem", [pair.certificate, pair.key])
        process = try Subprocess(
            ["python3", "-S", "-u", Repository.helper("tls_peer.py"), "remote", "--cert", file] + options + steps)
        port = try process.wait(for: "its port") { Seen.of($0).first?.port }
    }

    /// What it has said about connections, once there are so many lines.
    func seen(_ count: Int) throws -> [Seen] {
        try process.wait(for: "\(count) lines") { lines in
            let all = Seen.of(lines).filter { $0.port == nil }
            return all.count >= count ? all : nil
        }
    }
}
