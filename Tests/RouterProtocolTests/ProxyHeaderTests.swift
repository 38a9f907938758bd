import Addressing
import RouterProtocol
import Testing

@Suite struct ProxyHeaderTests {
    private static let signature: [UInt8] = [13, 10, 13, 10, 0, 13, 10, 81, 85, 73, 84, 10]

    private func text(_ client: Endpoint?, _ local: Endpoint?) -> String {
        String(decoding: ProxyHeader.bytes(version: 1, client: client, local: local), as: UTF8.self)
    }

    private func endpoint(_ text: String) throws -> Endpoint { try #require(Endpoint(text)) }

    @Test("version 1 is a line of words")
    func versionOne() throws {
        #expect(
            text(try endpoint("192.0.2.1:40000"), try endpoint("198.51.100.7:443"))
                == "PROXY TCP4 192.0.2.1 198.51.100.7 40000 443\r\n")
        #expect(
            text(try endpoint("[2001:db8::1]:1"), try endpoint("[::1]:65535"))
                == "PROXY TCP6 2001:db8::1 ::1 1 65535\r\n")
        #expect(
            text(try endpoint("[fe80::1%3]:1"), try endpoint("[fe80::2%3]:2")) == "PROXY TCP6 fe80::1 fe80::2 1 2\r\n")
    }

    @Test("what has no two addresses of a kind is unknown")
    func unknown() throws {
        let four = try endpoint("192.0.2.1:40000")
        let six = try endpoint("[::1]:2")
        for (client, local) in [
            (nil, nil), (four, nil), (nil, four), (four, six), (six, four), (.unix("/a"), .unix("/b")),
            (four, Endpoint.name("a", port: 1)),
        ] as [(Endpoint?, Endpoint?)] {
            #expect(text(client, local) == "PROXY UNKNOWN\r\n")
            #expect(
                ProxyHeader.bytes(version: 2, client: client, local: local) == Self.signature + [0x21, 0x00, 0, 0])
        }
    }

    @Test("version 2 is binary, addresses before ports, in network order")
    func versionTwo() throws {
        #expect(
            ProxyHeader.bytes(
                version: 2, client: try endpoint("192.0.2.1:40000"), local: try endpoint("198.51.100.7:443"))
                == Self.signature + [0x21, 0x11, 0, 12, 192, 0, 2, 1, 198, 51, 100, 7, 0x9c, 0x40, 1, 0xbb])
        #expect(
            ProxyHeader.bytes(
                version: 2, client: try endpoint("[2001:db8::1%9]:258"), local: try endpoint("[ff::fe]:1"))
                == Self.signature + [
                    0x21, 0x21, 0, 36, 0x20, 1, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0xff, 0, 0, 0, 0, 0,
                    0, 0, 0, 0, 0, 0, 0, 0, 0xfe, 1, 2, 0, 1,
                ])
    }

    @Test("version 2 tells what was agreed with a client whose TLS ended here")
    func tls() throws {
        var facts = TLSFacts(version: "TLSv1.3", cipher: "AES", sni: "a.b", alpn: "h2", clientCertificate: nil)
        func told(client: Endpoint? = nil) -> [UInt8] {
            ProxyHeader.bytes(version: 2, client: client, local: client, tls: facts)
        }
        let alpn: [UInt8] = [0x01, 0, 2] + bytes("h2")
        let name: [UInt8] = [0x02, 0, 3] + bytes("a.b")
        func tls(_ flags: UInt8, _ verify: UInt8) -> [UInt8] {
            [0x20, 0, 21, flags, 0, 0, 0, verify, 0x21, 0, 7] + bytes("TLSv1.3") + [0x23, 0, 3] + bytes("AES")
        }
        #expect(told() == Self.signature + [0x21, 0x00, 0, 35] + alpn + name + tls(0x01, 1))
        #expect(
            told(client: try endpoint("127.0.0.1:1"))
                == Self.signature + [0x21, 0x11, 0, 47, 127, 0, 0, 1, 127, 0, 0, 1, 0, 1, 0, 1] + alpn + name
                + tls(0x01, 1))
        facts.clientCertificate = .init(subject: "CN=a", issuer: "CN=b", names: [], fingerprint: "")
        facts.alpn = nil
        facts.sni = nil
        #expect(told() == Self.signature + [0x21, 0x00, 0, 24] + tls(0x05, 0))
        #expect(ProxyHeader.bytes(version: 1, client: nil, local: nil, tls: facts) == bytes("PROXY UNKNOWN\r\n"))
    }
}
