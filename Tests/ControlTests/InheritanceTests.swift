import Addressing
import Config
import Linux
import Testing

@testable import Control

@Suite("What a worker inherits")
struct InheritanceTests {
    /// Settings none of which has its default.
    static func unusual() throws -> Settings {
        var settings = Settings(
            name: "a name = with\nall", router: RouterSpec(arguments: ["sh", "-c", "a\nb=c", ""], text: "sh -c 'a\nb'"))
        settings.binds = try ["127.0.0.1:0", "[::1]:6000", "unix:/run/x?mode=0660", "fd://7", "localhost:80"].map {
            try #require(BindAddress($0))
        }
        settings.backlog = 11
        settings.workers = 12
        settings.routers = 3
        settings.reload = true
        settings.shadowRouter = try RouterSpec(command: "unix:/run/shadow.sock")
        settings.canaryRouter = try RouterSpec(command: "python3 'a b.py'")
        settings.canary = 25
        settings.workerConnections = 13
        settings.workerTimeoutMilliseconds = 14
        settings.maxInitialBytes = 15
        settings.verdictTimeoutMilliseconds = 16
        settings.routerTimeoutMilliseconds = 17
        settings.connectTimeoutMilliseconds = 18
        settings.gracefulTimeoutMilliseconds = 0
        settings.silenceMilliseconds = 20
        settings.fallback = Endpoint("[::1]:81")
        settings.fileRoot = "/srv/files"
        settings.logFile = "/tmp/a log"
        settings.logLevel = .debug
        settings.hasExplicitBinds = true
        settings.tlsBinds = [0, 2]
        var tls = TLSSettings(certificateFiles: ["/etc/a b.pem", "c=d"])
        tls.keyFiles = ["/etc/k\ney"]
        tls.clientAuthoritiesFile = "/etc/ca"
        tls.clientCertificates = .optional
        tls.ciphers = "ECDHE+AESGCM"
        tls.versionMin = .tls13
        tls.alpn = ["h2", "http/1.1"]
        settings.tls = tls
        settings.daemon = true
        settings.pidFile = "/run/x=y\n.pid"
        settings.user = "1000"
        settings.group = "daemon"
        settings.umask = 0o27
        settings.logLevels = [.router: .debug, .access: .info]
        settings.logFormat = .json
        settings.accessLog = "-"
        return settings
    }

    static func document() throws -> Inheritance {
        Inheritance(
            serial: .max, slot: 3, generation: 4, arbiter: 812, softDescriptorLimit: 1024,
            binds: try unusual().binds, settings: try unusual())
    }

    @Test("every setting reaches the worker")
    func settings() throws {
        let settings = try Self.unusual()
        #expect(try Settings(records: settings.records) == settings)
        // One key for each property: a new setting that is not listed shows here.
        let keys = Set(settings.records.map { String($0.key.prefix { $0 != "." }) }).subtracting(["routerArgument"])
        #expect(keys == Set(Mirror(reflecting: settings).children.compactMap(\.label)))
    }

    @Test("settings with defaults survive, too")
    func defaults() throws {
        let settings = Settings(name: "x", router: RouterSpec(arguments: ["true"], text: "true"))
        #expect(try Settings(records: settings.records) == settings)
        let external = Settings(name: "x", router: try RouterSpec(command: "unix:/run/x.sock"))
        #expect(external.router.socketPath == "/run/x.sock")
        #expect(try Settings(records: external.records) == external)
    }

    @Test("the document survives its bytes")
    func document() throws {
        var document = try Self.document()
        #expect(try Inheritance(decoding: document.encoded()) == document)
        document.hasTLS = true
        #expect(try Inheritance(decoding: document.encoded()) == document)
        // Where the parcel is follows from the listeners: another place is a mistake.
        let text = String(decoding: document.encoded(), as: UTF8.self)
        #expect(throws: InheritanceError.invalid(key: "tls", value: "3")) {
            try Inheritance(decoding: Array(text.replacing("\0tls=11\0", with: "\0tls=3\0").utf8))
        }
    }

    @Test("unknown keys are ignored, other versions and roles refused")
    func versions() throws {
        let document = try Self.document()
        let bytes = document.encoded()
        #expect(try Inheritance(decoding: bytes + Array("later=1\0settings.later=2\0".utf8)) == document)
        var other = bytes
        other[Array("tproxy-inheritance=".utf8).count] = UInt8(ascii: "2")
        #expect(throws: InheritanceError.otherVersion("2")) { try Inheritance(decoding: other) }
        let text = String(decoding: bytes, as: UTF8.self).replacing("role=worker", with: "role=baker")
        #expect(throws: InheritanceError.invalid(key: "role", value: "baker")) {
            try Inheritance(decoding: Array(text.utf8))
        }
    }

    @Test("what lacks a key or holds nonsense is refused by name")
    func refused() throws {
        let text = String(decoding: try Self.document().encoded(), as: UTF8.self)
        #expect(throws: InheritanceError.missing("serial")) {
            try Inheritance(decoding: Array(text.replacing("\0serial=", with: "\0cereal=").utf8))
        }
        #expect(throws: InheritanceError.invalid(key: "slot", value: "-3")) {
            try Inheritance(decoding: Array(text.replacing("\0slot=3", with: "\0slot=-3").utf8))
        }
        for text in ["", "\0", "x", "x\0", "=\0", "tproxy-inheritance=1\0", "tproxy-inheritance=1"] {
            #expect(throws: InheritanceError.self) { try Inheritance(decoding: Array(text.utf8)) }
        }
    }

    @Test("a damaged document never traps")
    func fuzz() throws {
        var random = Seeded(state: 2)
        let document = try Self.document().encoded()
        for _ in 0..<2000 {
            var bytes = document
            for _ in 0..<Int.random(in: 1...8, using: &random) {
                bytes[Int.random(in: 0..<bytes.count, using: &random)] = .random(in: 0...255, using: &random)
            }
            _ = try? Inheritance(decoding: bytes)
        }
    }

    @Test("a process that no arbiter has started is what people start")
    func absent() throws {
        let role = try StartedAs.take()
        guard case .program = role else {
            Issue.record("it has a role")
            return
        }
    }
}

@Suite("What an arbiter gets from another")
struct SuccessionTests {
    static func document() throws -> Succession {
        let file = try #require(FileIdentity("2049:77"))
        return Succession(
            isUpgrade: true, origin: 812, softDescriptorLimit: 1024, lastSerial: 9, generation: 4,
            listeners: [
                .init(bind: try #require(BindAddress("127.0.0.1:0"))),
                .init(bind: try #require(BindAddress("unix:/run/x?mode=0660")), file: file),
                .init(bind: .descriptor(3), isActivated: true),
            ])
    }

    @Test("the document survives its bytes, in both roles")
    func document() throws {
        var document = try Self.document()
        #expect(try Succession(decoding: document.encoded()) == document)
        document.isUpgrade = false
        #expect(try Succession(decoding: document.encoded()) == document)
        document.ticketKeyDue = Instant(nanoseconds: 12_345)
        #expect(try Succession(decoding: document.encoded()) == document)
        let text = String(decoding: document.encoded(), as: UTF8.self)
        #expect(throws: InheritanceError.invalid(key: "ticketKeys", value: "5")) {
            try Succession(decoding: Array(text.replacing("\0ticketKeys=8\0", with: "\0ticketKeys=5\0").utf8))
        }
        #expect(throws: InheritanceError.missing("ticketKeyDue")) {
            try Succession(decoding: Array(text.replacing("\0ticketKeyDue=", with: "\0ticketKeyTwo=").utf8))
        }
    }

    @Test("it carries a version, and another one is refused; so is a worker's document")
    func version() throws {
        var bytes = try Self.document().encoded()
        bytes[Array("tproxy-inheritance=".utf8).count] = UInt8(ascii: "2")
        #expect(throws: InheritanceError.otherVersion("2")) { try Succession(decoding: bytes) }
        let worker = try InheritanceTests.document().encoded()
        #expect(throws: InheritanceError.invalid(key: "role", value: "worker")) { try Succession(decoding: worker) }
    }

    @Test("a damaged document never traps")
    func fuzz() throws {
        var random = Seeded(state: 3)
        let document = try Self.document().encoded()
        for _ in 0..<2000 {
            var bytes = document
            for _ in 0..<Int.random(in: 1...8, using: &random) {
                bytes[Int.random(in: 0..<bytes.count, using: &random)] = .random(in: 0...255, using: &random)
            }
            _ = try? Succession(decoding: bytes)
        }
    }

    @Test("a handover survives the wire")
    func handover() throws {
        for message in [Handover.takeOver, .told(#"{"method": "close", "params": {"tag": "a b"}}"#)] {
            let numbered = Numbered(number: 1, message: message)
            #expect(try ControlCodec.decode(ControlCodec.encode(numbered)) == numbered)
        }
    }
}
