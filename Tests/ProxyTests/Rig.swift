// What a connection needs around it, for tests: a client, a remote, borrowed things and a clock set by hand.

import Addressing
import Config
import Glibc
import Linux
import Reactor
import RouterProtocol
import SystemPackage
import TLS
import Testing

@testable import Proxy

/// One connection and both its peers.
final class Rig {
    private var connections = Slab<Connection>()
    private let slot: UInt32 = 0
    private var around: Surroundings
    private var client: Descriptor?
    /// The client's TLS, when it speaks that.
    private var tls: TLSSession?
    private let wire = TLSWire()
    private let listener: Descriptor
    private var path: String?
    let remoteEndpoint: Endpoint
    private(set) var clientError: Errno?

    init(
        isOwn: Bool = false, wanting events: EventSet = [], overTCP: Bool = false, fallback: Bool = false,
        overTLS: Bool = false, shakingHands: Bool = true, _ change: (inout Settings) -> Void = { _ in }
    ) throws {
        listener = try Socket.open(family: AF_INET)
        try Socket.bind(listener, to: .ipv4(.loopback, port: 0))
        try Socket.listen(listener, backlog: 16)
        let address = try Socket.localAddress(listener.raw)
        remoteEndpoint = try #require(address.endpoint)
        var settings = Settings(name: "test", router: RouterSpec(arguments: ["true"], text: "true"))
        if fallback { settings.fallback = remoteEndpoint }
        change(&settings)
        around = Surroundings(
            pools: Pools(pipesMax: 4), poller: try Poller(), takenFile: nil, settings: settings,
            ownAddresses: isOwn ? [address] : [], nowMicroseconds: 1_000_000_000)
        around.wantedEvents = events
        let ours: Descriptor
        if overTCP {
            let socket = try Socket.open(family: AF_INET)
            _ = try Socket.connect(socket, to: address)
            guard let accepted = try Socket.accept(listener.raw) else { throw Errno.wouldBlock }
            ours = accepted.take()
            client = consume socket
        } else {
            let pair = try Socket.pair()
            try Socket.setNonBlocking(pair.first.raw)
            try Socket.setNonBlocking(pair.second.raw)
            let raw = pair.release()
            ours = Descriptor(owning: raw.0)
            client = Descriptor(owning: raw.1)
        }
        let facts = Facts(
            token: Token(slot: 0, generation: 0, kind: TokenKind.client), serial: 1, listener: 0, client: .unnamed,
            acceptedAt: around.nowMicroseconds)
        var transport: Transport? = Transport(ours)
        if overTLS {
            guard let raw = transport?.raw,
                let session = TLSSession(listener: try Self.listenerTLS(), socket: raw, wire: around.pools.wire)
            else { throw Errno.noMemory }
            transport!.speak(session)
            // So that what a slow client is told waits in the session.
            var bytes: Int32 = 4608
            setsockopt(raw, SOL_SOCKET, SO_SNDBUF, &bytes, 4)
            var arguments = TLSArguments()
            arguments.verifies = false
            tls = try TLSSession(
                remote: RemoteTLS(arguments, authorities: SystemAuthorities()),
                host: .name("a.example", port: 443), socket: clientRaw, wire: wire)
        }
        _ = connections.insert { _, _ in Connection(client: transport.take()!, facts, around) }
        if overTLS && shakingHands { try shakeHands() }
    }

    private static func listenerTLS() throws -> ListenerTLS {
        let material = TLSMaterial(
            certificates: [try TestCertificate(["DNS:a.example"]).material()],
            ticketKeys: [[UInt8](repeating: 7, count: TLSMaterial.ticketKeyBytes)])
        return try ListenerTLS(material, TLSSettings(certificateFiles: ["a.pem"]))
    }

    private func shakeHands() throws {
        for _ in 0..<4 {
            tls!.becameReadable()
            let outcome = tls!.handshake()
            _ = handle(.ready(.client, .readable))
            if case .failed(let failure) = outcome { throw failure }
        }
    }

    deinit {
        if let path { unlink(path) }
    }

    var now: Int64 { around.now }
    var facts: Facts { connections[slot].facts }
    var closeReason: CloseReason? { connections[slot].closeReason }
    var reason: CloseReason? { connections[slot].phase.reason }
    var deadline: Int64? { connections[slot].phase.deadline }
    var failure: ErrorQuestion.Failure? { connections[slot].phase.failure?.kind }

    var attempts: Int? { connections[slot].phase.failure?.attempts.count }
    var pipesLent: Int { around.pools.pipesLent }

    func handle(_ event: ConnectionEvent) -> Effects { connections[slot].handle(event, &around) }
    func dropConnection() { _ = connections.remove(slot) }
    func pass(milliseconds: Int64) { around.nowMicroseconds += milliseconds * 1000 }

    /// The router that decides rewrites these directions.
    func isRewritten(_ directions: StreamDirections) { connections[slot].facts.rewritten = directions }

    /// The rewriter of a direction dials back; its end of the socket.
    func rewriterDials(_ direction: StreamDirection) throws -> Descriptor {
        let pair = try Socket.pair()
        for raw in [pair.first.raw, pair.second.raw] { try Socket.setNonBlocking(raw) }
        let raw = pair.release()
        around.arrivedStream = Descriptor(owning: raw.0)
        _ = handle(.streamArrived(direction))
        return Descriptor(owning: raw.1)
    }

    var questionBytes: String {
        var text = ""
        connections[slot].phase.withQuestion { _, data in
            var bytes: [UInt8] = []
            for index in 0..<data.count { bytes.append(data[index]) }
            text = String(decoding: bytes, as: UTF8.self)
        }
        return text
    }

    var questionEvent: Event? {
        var event: Event?
        connections[slot].phase.withQuestion { asked, _ in event = asked.event }
        return event
    }

    var questionState: String? {
        var text: String?
        connections[slot].phase.withQuestion { asked, _ in
            let state = asked.state
            text = state.map { String(decoding: $0, as: UTF8.self) }
        }
        return text
    }

    // MARK: The peers

    private var clientRaw: Int32 {
        switch client {
        case .some(let client): client.raw
        case .none: -1
        }
    }

    func clientSends(_ text: String) {
        guard tls != nil else { return write(clientRaw, text) }
        var text = text
        _ = text.withUTF8 { try? tls!.write(from: $0.baseAddress!, count: $0.count) }
    }
    /// Sends these bytes as they are, past TLS.
    func clientSendsBare(_ text: String) { write(clientRaw, text) }
    func clientEnds() {
        guard tls != nil else { return end(clientRaw) }
        tls!.endWriting()
        end(clientRaw)
    }
    /// What a TLS client reads with one look at its socket.
    func clientLooks(_ most: Int = 65_536) throws -> Transfer {
        var buffer = [UInt8](repeating: 0, count: most)
        tls!.becameReadable()
        return try buffer.withUnsafeMutableBytes { try tls!.read(into: $0.baseAddress!, count: $0.count) }
    }
    /// The client is gone at once, and what it has not read is lost (over TCP).
    func clientResets() {
        Socket.resetOnClose(clientRaw)
        client = nil
    }
    /// Sends and lets the connection move bytes until nobody takes any more.
    func clientFills() {
        let chunk = String(repeating: "z", count: 262_144)
        var quiet = 0
        while quiet < 3 {
            let before = facts.bytesToRemote
            clientSends(chunk)
            var effects = handle(.ready(.client, .readable))
            while effects.moreToDo { effects = handle(.resume) }
            quiet = facts.bytesToRemote == before ? quiet + 1 : 0
        }
    }
    func clientReads() -> String { read(clientRaw) }
    func write(_ raw: Int32, _ text: String) {
        var text = text
        _ = text.withUTF8 { try? Socket.send(raw, from: $0.baseAddress!, count: $0.count) }
    }
    func end(_ raw: Int32) { try? Socket.endWriting(raw) }

    /// Everything that has arrived.
    func read(_ raw: Int32) -> String {
        var bytes: [UInt8] = []
        var buffer = [UInt8](repeating: 0, count: 65_536)
        do throws(Errno) {
            while case .moved(let count) = try Self.receive(raw, &buffer) { bytes += buffer[..<count] }
        } catch {
            clientError = error
        }
        return String(decoding: bytes, as: UTF8.self)
    }

    func readsEnd(_ raw: Int32) -> Bool {
        var buffer = [UInt8](repeating: 0, count: 16)
        return (try? Self.receive(raw, &buffer)) == .endOfStream
    }

    private static func receive(_ raw: Int32, _ buffer: inout [UInt8]) throws(Errno) -> Transfer {
        let count = buffer.count
        var span = buffer.mutableSpan
        return try span.withUnsafeMutableBytes { (bytes) throws(Errno) in
            guard let base = bytes.baseAddress else { return .wouldBlock }
            return try Socket.receive(raw, into: base, count: count)
        }
    }

    func acceptRemote() throws -> Descriptor {
        // A loopback connect is queued at once.
        guard let accepted = try Socket.accept(listener.raw) else { throw Errno.wouldBlock }
        return accepted.take()
    }

    /// Lets the connection find out what became of a connect that goes on.
    func settleRemote() {
        if connections[slot].facts.connectedAt == nil { _ = handle(.ready(.remote, [.writable, .error, .hangUp])) }
        if connections[slot].facts.connectedAt == nil { _ = handle(.ready(.remote, .writable)) }
    }

    /// An address where nobody listens.
    static func deadEndpoint() throws -> Endpoint {
        let socket = try Socket.open(family: AF_INET)
        try Socket.bind(socket, to: .ipv4(.loopback, port: 0))
        return try #require(try Socket.localAddress(socket.raw).endpoint)
    }

    func makeFile(_ text: String) throws -> String {
        var template = Array("/tmp/tproxy-test-XXXXXX".utf8CString)
        let raw = mkstemp(&template)
        try #require(raw >= 0)
        let file = Descriptor(owning: raw)
        var text = text
        _ = text.withUTF8 { Glibc.write(file.raw, $0.baseAddress, $0.count) }
        let made = String(decoding: template.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)
        path = made
        return made
    }
}
