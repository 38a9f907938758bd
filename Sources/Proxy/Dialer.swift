// Connecting to one remote: its addresses, tried one after the other with a head start (RFC 8305, Happy Eyeballs).

import Addressing
import Config
import Linux
import Reactor
import RouterProtocol
import SystemPackage

/// Why a remote could not be used: what `proxy_error` is told and the log says.
struct RemoteFailure {
    let kind: ErrorQuestion.Failure
    let message: String
    var errno: Errno?
    var remote: Endpoint?
    var attempts: [ErrorQuestion.Attempt] = []
    /// A reset is what it comes to, and not what came.
    var isTruncation = false

    /// The close reason when nobody answers the failure with something else.
    var closeReason: CloseReason {
        switch kind {
        case .connectRefused: .connectRefused
        case .connectTimeout: .connectTimeout
        case .inactivityTimeout: .inactivityTimeout
        case .dns: .dns
        case .tls: .remoteTLS
        case .connectFailed: .connectFailed
        case .loop: .loop
        case .reset: isTruncation ? .remoteTruncated : .remoteReset
        case .file: .fileFailed
        }
    }
}

extension RemoteFailure {
    /// A file that cannot be sent.
    init(file error: RegularFile.Failure, name: String) {
        switch error {
        case .system(.improperLink):
            self.init(kind: .file, message: "file \(name): leads out of --file-root", errno: .improperLink)
        case .system(let errno): self.init(kind: .file, message: "file \(name): \(errno)", errno: errno)
        case .notRegular: self.init(kind: .file, message: "file \(name): not a regular file")
        }
    }
}

extension RemoteVerdict {
    /// Whether the client's bytes are the first thing that the remote hears.
    var isDirect: Bool { tls == nil && proxyProtocol == nil }
}

extension SocketAddress {
    /// The address a verdict wants to connect from.
    init(_ local: LocalAddress) {
        switch local.address {
        case .ipv4(let address): self = .ipv4(address, port: local.port)
        case .ipv6(let address): self = .ipv6(address, port: local.port)
        }
    }
}

/// One remote's addresses and the connects under way: at most two at once.
struct Dialer: ~Copyable {
    /// What became of the remote so far.
    enum Progress: ~Copyable {
        case pending
        case connected(Transport)
        case failed(Errno)
        /// The address is one of our own listeners.
        case isOurselves
    }

    private var addresses: ArraySlice<SocketAddress>
    private let source: SocketAddress?
    private let token: Token
    private var first: Transport?
    /// Started when the first had its head start; kept apart by its own kind of token.
    private var second: Transport?
    /// When the next address may be tried beside the present one, or a full Unix listener again.
    private(set) var nextAttemptAt: Int64?
    private var lastError = Errno.hostIsDown

    /// `source` is the local address to connect from.
    init(_ addresses: [SocketAddress], from source: SocketAddress?, token: Token) {
        self.addresses = addresses.prefix(Limits.addressesMax)
        self.source = source
        self.token = token
    }

    /// Starts the next address. `bytes` are what the remote is sent first: a near one takes them at once, which
    /// tells that it is connected a round earlier than the reactor would.
    mutating func tryNext(_ bytes: inout Buffer?, _ around: borrowing Surroundings) -> Progress {
        while let address = addresses.popFirst() {
            nextAttemptAt = nil
            if Self.isOurs(address, around.ownAddresses) { return .isOurselves }
            do throws(Errno) {
                let descriptor = try Socket.open(family: address.family)
                if let source { try Socket.bindSource(descriptor, to: source) }
                if address.family != SocketAddress.unnamed.family {
                    Socket.sendAtOnce(descriptor.raw)
                    Socket.keepAlive(descriptor.raw)
                }
                let connecting = try Socket.connect(descriptor, to: address)
                if connecting == .queueFull {
                    // A Unix listener has no queue to wait in: try again shortly, until the deadline.
                    addresses = [address] + addresses
                    nextAttemptAt = around.now + Self.queueFullPauseMilliseconds
                    return .pending
                }
                var transport = Transport(descriptor, isConnecting: connecting == .inProgress)
                if bytes != nil, case .moved = try transport.write(&bytes) { return .connected(transport) }
                if !transport.isConnecting { return .connected(transport) }
                try watch(transport, around)
                return .pending
            } catch {
                lastError = error
            }
        }
        if first == nil && second == nil { return .failed(lastError) }
        return .pending
    }

    private mutating func watch(_ transport: consuming Transport, _ around: borrowing Surroundings) throws(Errno) {
        var transport = transport
        let isSecond = first != nil
        try transport.watch(around.poller, token.with(kind: isSecond ? TokenKind.racer : TokenKind.remote))
        if isSecond { second = consume transport } else { first = consume transport }
        if !addresses.isEmpty { nextAttemptAt = around.now + Int64(Limits.addressDelayMilliseconds) }
    }

    /// A connect has come to something.
    mutating func ready(
        _ side: Side, _ readiness: Readiness, _ bytes: inout Buffer?, _ around: borrowing Surroundings
    ) -> Progress {
        var attempt: Transport?
        if side == .racer { swap(&attempt, &second) } else { swap(&attempt, &first) }
        guard var transport = attempt.take() else { return .pending }
        transport.note(readiness)
        do throws(Errno) {
            if try transport.finishConnecting() { return .connected(transport) }
            if side == .racer { second = consume transport } else { first = consume transport }
            return .pending
        } catch {
            lastError = error
        }
        return tryNext(&bytes, around)
    }

    /// The head start is over, or a Unix listener may have room again.
    mutating func advance(_ bytes: inout Buffer?, _ around: borrowing Surroundings) -> Progress {
        guard let nextAttemptAt, around.now >= nextAttemptAt else { return .pending }
        guard first == nil || second == nil else {
            self.nextAttemptAt = nil
            return .pending
        }
        return tryNext(&bytes, around)
    }

    private static let queueFullPauseMilliseconds: Int64 = 20

    /// Whether an address is one of our own listeners: connecting there would go round for ever.
    ///
    /// Compared before connecting, when the address is known already: no half-open hop ever comes about.
    static func isOurs(_ address: SocketAddress, _ own: [SocketAddress]) -> Bool {
        own.contains { listener in
            switch (listener, address) {
            case (.unix(let path), .unix(let wanted)): path == wanted || Self.isSameFile(path, wanted)
            case (.ipv4(let host, let port), .ipv4(let wanted, let wantedPort)):
                port == wantedPort && (host == wanted || wanted == .any || host == .any && Socket.isLocal(address))
            case (.ipv6(let host, let port), .ipv6(let wanted, let wantedPort)):
                port == wantedPort && (host == wanted || wanted == .any || host == .any && Socket.isLocal(address))
            case (.ipv4(let host, let port), .ipv6(let wanted, let wantedPort)):
                port == wantedPort
                    && (wanted.mappedIPv4.map {
                        $0 == host || $0 == .any || host == .any && Socket.isLocal(address)
                    } ?? false)
            default: false
            }
        }
    }

    /// Whether two paths lead to one file, however they are spelled: over links, or relative.
    private static func isSameFile(_ path: String, _ other: String) -> Bool {
        guard let identity = FileIdentity(following: path) else { return false }
        return identity == FileIdentity(following: other)
    }
}
