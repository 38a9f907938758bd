import Addressing
import Testing

@Suite struct EndpointTests {
    @Test(
        "an endpoint prints as it was written, in canonical form",
        arguments: [
            ("127.0.0.1:80", "127.0.0.1:80"), ("[::1]:443", "[::1]:443"),
            ("[2001:DB8:0:0:1::0]:1", "[2001:db8:0:0:1::]:1"),
            ("[::ffff:1.2.3.4]:5", "[::ffff:1.2.3.4]:5"), ("example.org:65535", "example.org:65535"),
            ("unix:/run/x.sock", "unix:/run/x.sock"), ("[fe80::1%2]:9", "[fe80::1%2]:9"),
            ("under_score:1", "under_score:1"),
        ])
    func canonical(text: String, expected: String) {
        #expect(Endpoint(text)?.description == expected)
    }

    @Test(
        "what is no endpoint is refused",
        arguments: [
            "", ":", "host", "host:", ":80", "host:0", "host:65536", "host:+80", "host: 80", "::1:80", "[::1]",
            "[::1:80", "[1::2::3]:1",
            "[12345::]:1", "[1:2:3:4:5:6:7]:1", "[1:2:3:4:5:6:7:8:9]:1", "[:1::]:1", "[1:]:1", "unix:", "unix:\0",
            "ho st:1", "host\0:1",
            "host\u{e9}:1", "[::1%]:1", "[::1%x]:1", "[::1.2.3]:1", "host/:1",
            "99999999999999999999:99999999999999999999",
        ])
    func refused(text: String) {
        #expect(Endpoint(text) == nil)
    }

    @Test("an IPv4 address with leading zeros or too many parts is a name or nothing, never an address")
    func strictIPv4() {
        for text in ["01.2.3.4", "1.2.3", "1.2.3.4.5", "256.1.1.1", "1..2.3", "1.2.3."] {
            #expect(IPv4Address(text) == nil)
        }
    }

    @Test("random text never traps, and what is accepted is read back as the same value")
    func fuzz() {
        var random = SeededGenerator(seed: 7)
        let alphabet = Array("0123456789abcdefF:.[]%/unixmode?=-x ".unicodeScalars)
        for _ in 0..<50_000 {
            var text = ""
            for _ in 0..<Int.random(in: 0..<24, using: &random) {
                text.unicodeScalars.append(alphabet.randomElement(using: &random) ?? "0")
            }
            if let endpoint = Endpoint(text) { #expect(Endpoint(endpoint.description) == endpoint) }
            if let bind = BindAddress(text) { #expect(BindAddress(bind.description) == bind) }
        }
    }

    @Test("random IPv6 addresses survive being printed and read")
    func ipv6RoundTrip() {
        var random = SeededGenerator(seed: 8)
        for _ in 0..<20_000 {
            func half() -> UInt64 {
                (0..<4).reduce(0) { sum, _ in
                    sum << 16 | (Bool.random(using: &random) ? 0 : UInt64.random(in: 0...0xffff, using: &random))
                }
            }
            let address = IPv6Address(high: half(), low: half())
            #expect(IPv6Address(address.description) == address, "\(address)")
        }
    }
}

@Suite struct BindAddressTests {
    @Test(
        "every form of -b is read and normalised",
        arguments: [
            ("8080", "127.0.0.1:8080"), (":8080", "0.0.0.0:8080"), ("localhost", "localhost:5000"),
            ("10.0.0.1", "10.0.0.1:5000"),
            ("10.0.0.1:1", "10.0.0.1:1"), ("[::]:80", "[::]:80"), ("[::1]", "[::1]:5000"),
            ("unix:/tmp/x", "unix:/tmp/x"),
            ("unix:/tmp/x?mode=0666", "unix:/tmp/x?mode=0666"), ("unix:/tmp/x?mode=0600", "unix:/tmp/x"),
            ("fd://3", "fd://3"),
            ("127.0.0.1:0", "127.0.0.1:0"),
        ])
    func forms(text: String, expected: String) {
        #expect(BindAddress(text)?.description == expected)
    }

    @Test(
        "what is no address of a listener is refused",
        arguments: [
            "", ":", "[::1", "::1", "host:x", "unix:", "unix:/x?mode=9", "unix:/x?mode=7777", "unix:/x?y=1", "fd://",
            "fd://-1", "70000", "a b",
        ])
    func refused(text: String) {
        #expect(BindAddress(text) == nil)
    }
}
