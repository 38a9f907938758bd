import Addressing
import COpenSSL
import Config
import Linux
import RouterProtocol
import SystemPackage
import Testing

@testable import TLS

/// Our TLS on both ends of a socket pair.
@Suite struct SessionsOverSocketsTests {
    private struct Ends: ~Copyable {
        var client: TLSSession
        var listener: TLSSession
        let wire: TLSWire
        let sockets: DescriptorPair

        init(_ remote: RemoteTLS, _ listener: ListenerTLS) throws {
            let sockets = try Socket.pair()
            try Socket.setNonBlocking(sockets.first.raw)
            try Socket.setNonBlocking(sockets.second.raw)
            let wire = TLSWire()
            let endpoint = Endpoint.name("a.example", port: 443)
            let client = try TLSSession(remote: remote, host: endpoint, socket: sockets.first.raw, wire: wire)
            guard let session = TLSSession(listener: listener, socket: sockets.second.raw, wire: wire)
            else { throw TLSFailure("there is no memory") }
            self.client = client
            self.listener = session
            self.wire = wire
            self.sockets = sockets
        }

        /// Goes on until neither waits for the other, which has always spoken by then.
        mutating func shakeHands() -> (client: TLSSession.Handshake, listener: TLSSession.Handshake) {
            var outcome = (client: TLSSession.Handshake.waiting, listener: TLSSession.Handshake.waiting)
            for _ in 0..<10 {
                client.becameReadable()
                if outcome.client == .waiting { outcome.client = client.handshake() }
                listener.becameReadable()
                if outcome.listener == .waiting { outcome.listener = listener.handshake() }
            }
            return outcome
        }
    }

    @Test("a handshake over a socket brings the facts, and bytes pass both ways")
    func good() throws {
        let authority = try Authority()
        var ends = try Ends(
            remote(authority.arguments { $0.alpn = [Array("h2".utf8)] }),
            listener(authority.sign(["DNS:a.example"])) { $0.alpn = ["h2"] })
        let outcome = ends.shakeHands()
        #expect(outcome.client == .done && outcome.listener == .done)
        let facts = ends.listener.facts()
        #expect(
            facts
                == TLSFacts(
                    version: "TLSv1.3", cipher: "TLS_AES_128_GCM_SHA256", sni: "a.example", alpn: "h2",
                    clientCertificate: nil))
        let name = ends.listener.serverName
        #expect(name == "a.example")
        let sent = Array("hello".utf8)
        var taken = [UInt8](repeating: 0, count: 100)
        for towardsListener in [true, false] {
            let written = try sent.withUnsafeBytes { bytes in
                guard let start = bytes.baseAddress else { return Transfer.endOfStream }
                return towardsListener
                    ? try ends.client.write(from: start, count: bytes.count)
                    : try ends.listener.write(from: start, count: bytes.count)
            }
            #expect(written == .moved(5))
            ends.client.becameReadable()
            ends.listener.becameReadable()
            let read = try taken.withUnsafeMutableBytes { bytes in
                guard let start = bytes.baseAddress else { return Transfer.endOfStream }
                return towardsListener
                    ? try ends.listener.read(into: start, count: bytes.count)
                    : try ends.client.read(into: start, count: bytes.count)
            }
            #expect(read == .moved(5))
            #expect(Array(taken.prefix(5)) == sent)
        }
    }

    @Test("who refuses a certificate says why in OpenSSL's words, and the other hears of it")
    func refused() throws {
        let authority = try Authority()
        for (certificate, words) in [
            (try authority.sign(["DNS:a.example"], days: -9 ... -1), "certificate has expired"),
            (try authority.sign(["DNS:b.example"]), "hostname mismatch"),
            (try TestCertificate(["DNS:a.example"], commonName: "self"), "self-signed certificate"),
        ] {
            var ends = try Ends(remote(authority.arguments()), listener(certificate))
            let outcome = ends.shakeHands()
            #expect(outcome.client == .failed(TLSFailure(words)))
            guard case .failed(let heard) = outcome.listener else {
                Issue.record("\(outcome.listener)")
                continue
            }
            #expect(heard.message.contains("alert"))
        }
    }

    @Test("sessions over sockets are resumed, with the client's certificate")
    func resumed() throws {
        let authority = try Authority()
        let (chain, key) = (try authority.sign([], commonName: "c"), TLSMaterial.ticketKeyBytes)
        let file = try MemoryFile(chain.pem + chain.keyPEM)
        let remote = try remote(authority.arguments { $0.certificateFile = file.path })
        let certificate = try authority.sign(["DNS:a.example"])
        for round in 0..<4 {
            // Another worker each time.
            let worker = try listener(
                certificate, ticketKeys: [[UInt8](repeating: 1, count: key)], authorities: [authority.root]
            ) { $0.clientCertificates = .required }
            var ends = try Ends(remote, worker)
            let outcome = ends.shakeHands()
            #expect(outcome.client == .done && outcome.listener == .done)
            let isResumed = SSL_session_reused(ends.client.ssl) == 1
            #expect(isResumed == (round > 0))
            let subject = ends.listener.facts().clientCertificate?.subject
            #expect(subject == "CN=c")
            // The tickets come with the first read.
            ends.client.becameReadable()
            var byte: UInt8 = 0
            let nothing = try ends.client.read(into: &byte, count: 1)
            #expect(nothing == .wouldBlock)
        }
    }
}
