// The host of a request, as the cache reads it: in doubt there is none.

import RouterProtocol
import TLS
import Testing

@testable import Proxy

@Suite struct RequestHostTests {
    private func host(_ head: String) -> String? { host(Array(head.utf8)) }

    private func host(_ head: [UInt8]) -> String? {
        head.span.requestHost().map { String(decoding: head[$0], as: UTF8.self) }
    }

    @Test("the host is found in a whole head, without its port, and not before the head is whole")
    func found() {
        for (value, expected) in [
            ("a.example", "a.example"), ("A.example:80", "A.example"), ("a:", "a"), (" \t a_b-c.d \t", "a_b-c.d"),
            ("10.0.0.1:8080", "10.0.0.1"), ("[::1]:80", "[::1]"), ("[2001:db8::7]", "[2001:db8::7]"),
            (String(repeating: "a", count: 255), String(repeating: "a", count: 255)),
        ] {
            for head in [
                "GET / HTTP/1.1\r\nHost:\(value)\r\n\r\n",
                "POST /a?b=c%20 HTTP/1.0\r\nX: y\r\nhOST: \(value)\r\nX-Host: b\r\n\r\nHost: c\r\n\r\n",
                "OPTIONS * HTTP/1.1\r\nHost: \(value)\r\nHosts: b\r\nHos: b\r\nEmpty:\r\n\r\n",
            ] {
                #expect(host(head) == expected, "\(head)")
                let bytes = Array(head.utf8)
                guard let end = bytes.firstRange(of: Array("\r\n\r\n".utf8)) else { continue }
                for count in 0..<end.upperBound { #expect(host(Array(bytes[..<count])) == nil) }
            }
        }
    }

    @Test("in doubt there is no host")
    func doubtful() {
        for head in [
            "GET / HTTP/1.1\r\n\r\n", "GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nhost: b\r\n\r\n", "GET http://b/ HTTP/1.1\r\nHost: a\r\n\r\n",
            "CONNECT a:443 HTTP/1.1\r\nHost: a\r\n\r\n", "GET / HTTP/1.1\r\nHost : a\r\n\r\n",
            "GET / HTTP/1.1\r\n Host: a\r\n\r\n", "GET / HTTP/1.1\r\nX: y\r\n Host: b\r\nHost: a\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\n b\r\n\r\n", "GET / HTTP/1.1\nHost: a\n\n",
            "GET / HTTP/1.1\r\nX: y\nHost: b\r\nHost: a\r\n\r\n", "GET / HTTP/1.1\r\nX: y\rHost: b\r\nHost: a\r\n\r\n",
            "GET / HTTP/1.1\r\nHost:\r\n\r\n", "GET / HTTP/1.1\r\nHost: :80\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a:b\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a b\r\n\r\n", "GET / HTTP/1.1\r\nHost: a,b\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: u@a\r\n\r\n", "GET / HTTP/1.1\r\nHost: a/b\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\u{0}\r\n\r\n", "GET / HTTP/1.1\r\nHost: é\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: [::1\r\n\r\n", "GET / HTTP/1.1\r\nHost: [::1]x\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: \(String(repeating: "a", count: 256))\r\n\r\n",
            "GET / HTTP/2.0\r\nHost: a\r\n\r\n", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            "GET / HTTP/1.2\r\nHost: a\r\n\r\n",
            "GET  / HTTP/1.1\r\nHost: a\r\n\r\n", "GET / x HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET /  HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET / HTTP/1.1 \r\nHost: a\r\n\r\n", "GET /\r\nHost: a\r\n\r\n", " GET / HTTP/1.1\r\nHost: a\r\n\r\n",
            "\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", "G(T / HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET *x HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET / HTTP/1.1\r\nno colon\r\nHost: a\r\n\r\n", "GET / HTTP/1.1\r\n: x\r\nHost: a\r\n\r\n", "\r\n\r\n",
            "GET\r\n\r\n",
            "GET \r\n\r\n", "Host: a\r\n\r\n", "",
            "GET / HTTP/1.1\r\nX: \(String(repeating: "y", count: 33000))\r\nHost: a\r\n\r\n",
        ] {
            #expect(host(head) == nil, "\(head.prefix(60))")
        }
    }

    @Test(
        "random heads never trap, and what is found is a name in a Host line", arguments: 1...4 as ClosedRange<UInt64>)
    func fuzz(seed: UInt64) {
        var generator = Dice(seed: seed)
        let pieces = [
            "GET", " ", "/", "*", " HTTP/1.1", "\r\n", "\r", "\n", "Host:", "host", ":", "a", "[::1]", "80", "\t",
            "X: y\r\n", "\u{0}", "é",
            "GET / HTTP/1.1\r\n", "Host: a\r\n", "\r\n\r\n",
        ]
        var count = 0
        for _ in 0..<20000 {
            var head = Bool.random(using: &generator) ? "GET / HTTP/1.1\r\n" : ""
            for _ in 0..<Int.random(in: 0...12, using: &generator) {
                head += pieces.randomElement(using: &generator) ?? ""
            }
            guard let found = host(head) else { continue }
            count += 1
            #expect(head.hasSuffix("\r\n\r\n") || head.contains("\r\n\r\n"))
            #expect(head.lowercased().contains("\r\nhost:"))
            #expect(head.contains(found) && !found.isEmpty)
        }
        #expect(count > 10)
    }
}

@Suite struct ClientHelloToldTests {
    @Test("what was read of a hello is told with its name, or with its state alone")
    func told() {
        func told(_ data: [UInt8], bytesMax: Int = 65536) -> ClientHelloFacts {
            var reader = ClientHelloReader(bytesMax: bytesMax)
            _ = reader.read(data.span)
            return ClientHelloFacts(reader, data.span)
        }
        let hello = Asked.tls("A.example").data
        #expect(told(hello) == ClientHelloFacts(state: .complete, serverName: "A.example"))
        #expect(told(Asked.tls("a b").data) == ClientHelloFacts(state: .complete, hasUnusableServerName: true))
        #expect(told(hello.dropLast()) == ClientHelloFacts(state: .needMore))
        #expect(told(hello.dropLast(), bytesMax: 20) == ClientHelloFacts(state: .tooLarge))
        #expect(told([22, 2]) == ClientHelloFacts(state: .notTLS))
        #expect(told([22, 3, 1, 0, 0]) == ClientHelloFacts(state: .malformed))
        #expect(
            ClientHelloReader.State.allCases.map(\.rawValue).sorted()
                == ClientHelloFacts.State.allCases.map(\.rawValue).sorted())
    }
}
