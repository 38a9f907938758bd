// TLS towards remotes: what a verdict's `ssl_args` ask for, made once and used for every connection that asks for the
// same.

public import Addressing
import COpenSSL
import Config
import Glibc
import Linux
public import RouterProtocol
import SystemPackage

/// The certificate authorities that the system trusts: one set of them for everybody, for each takes 2 MB.
public final class SystemAuthorities {
    private var loaded: CertificateStore?

    /// Nothing is read before the first remote is verified by them.
    public init() {}

    /// The C function is `X509_STORE_set_default_paths`: a file or a folder, as the system's OpenSSL or the environment
    /// (`SSL_CERT_FILE`, `SSL_CERT_DIR`) says.
    func store() throws(TLSFailure) -> CertificateStore {
        if let loaded { return loaded }
        let store = try CertificateStore()
        guard X509_STORE_set_default_paths(store.x509) == 1
        else { throw .fromQueue("the system's certificate authorities cannot be read") }
        // It has tried places where nothing is.
        ERR_clear_error()
        loaded = store
        return store
    }
}

/// Certificates that are trusted; OpenSSL counts its references.
final class CertificateStore {
    let x509: OpaquePointer

    init() throws(TLSFailure) {
        ERR_clear_error()
        guard let x509 = X509_STORE_new() else { throw .fromQueue("TLS cannot be set up") }
        self.x509 = x509
    }

    deinit { X509_STORE_free(x509) }
}

/// TLS with remotes under the same arguments, together with the sessions that can be resumed under them.
public final class RemoteTLS {
    private let context: TLSContext
    private let sessions: RemoteSessions
    private let verifies: Bool
    /// Instead of the remote's own name.
    private let serverName: PeerName?

    /// Checks the arguments and reads the files they name. A failure names the file or the argument, and what is wrong
    /// in OpenSSL's own words.
    public init(_ arguments: TLSArguments, authorities: SystemAuthorities) throws(TLSFailure) {
        verifies = arguments.verifies
        sessions = RemoteSessions(verified: arguments.verifies)
        if let name = arguments.serverName {
            guard let peer = PeerName(name) else { throw TLSFailure("server_hostname: no name of a host: \"\(name)\"") }
            serverName = peer
        } else {
            serverName = nil
        }
        context = try TLSContext(TLS_client_method())
        try Self.setVersion(arguments.version, context)
        if let ciphers = arguments.ciphers {
            try context.setCiphers(ciphers, withCertificates: verifies, option: "ciphers")
        }
        try Self.setCertificate(arguments, context)
        if verifies {
            SSL_CTX_set_verify(context.ctx, SSL_VERIFY_PEER, nil)
            let store: CertificateStore
            if let path = arguments.authoritiesFile {
                store = try CertificateStore()
                for certificate in try PEMReader(Self.bytes(of: path), name: path).certificates() {
                    guard X509_STORE_add_cert(store.x509, certificate.x509) == 1 else { throw .fromQueue(path) }
                }
            } else {
                store = try authorities.store()
            }
            SSL_CTX_set1_cert_store(context.ctx, store.x509)
        } else {
            // OpenSSL would look into the certificate all the same, and then not care: a thirtieth of a handshake.
            SSL_CTX_set_cert_verify_callback(context.ctx, { _, _ in 1 }, nil)
        }
        let protocols = try TLSContext.wire(arguments.alpn)
        // Unlike others, this one gives 0 when all is well.
        guard protocols.isEmpty || SSL_CTX_set_alpn_protos(context.ctx, protocols, UInt32(protocols.count)) == 0
        else { throw .fromQueue("ALPN") }
        sessions.fill(from: context)
    }

    /// A session that begins with its ClientHello; the caller frees it. The remote's name, or the one in the arguments,
    /// is sent and verified; an address is only verified (RFC 6066 3).
    func makeSession(to remote: Endpoint) throws(TLSFailure) -> OpaquePointer {
        let name = serverName ?? PeerName(remote)
        guard name != nil || !verifies else {
            throw TLSFailure(
                "\(remote) has no name to verify: give server_hostname, or cert_reqs 0 to go without verification")
        }
        ERR_clear_error()
        guard let ssl = SSL_new(context.ctx) else { throw .fromQueue("TLS cannot be set up") }
        SSL_set_connect_state(ssl)
        guard prepare(ssl, name), sessions.resume(ssl, with: remote) else {
            SSL_free(ssl)
            throw .fromQueue("TLS cannot be set up")
        }
        return ssl
    }

    /// How many sessions can be resumed at the moment.
    var sessionsCount: Int { sessions.count }

    private func prepare(_ ssl: OpaquePointer, _ name: PeerName?) -> Bool {
        guard let name else { return true }
        let parameters = verifies ? SSL_get0_param(ssl) : nil
        switch name {
        case .host(let host):
            guard tp_SSL_set_tlsext_host_name(ssl, host) == 1 else { return false }
            guard let parameters else { return true }
            // A star stands for a whole label, and a subject is nobody's name any more (RFC 9525 6.3, 2).
            X509_VERIFY_PARAM_set_hostflags(
                parameters, UInt32(X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS | X509_CHECK_FLAG_NEVER_CHECK_SUBJECT))
            return X509_VERIFY_PARAM_set1_host(parameters, host, 0) == 1
        case .address(let bytes):
            guard let parameters else { return true }
            return X509_VERIFY_PARAM_set1_ip(parameters, bytes, bytes.count) == 1
        }
    }

    private static func setVersion(_ version: Int?, _ context: TLSContext) throws(TLSFailure) {
        let only: Int32
        switch version {
        case nil, 2:
            guard tp_SSL_CTX_set_min_proto_version(context.ctx, TLS1_2_VERSION) == 1
            else { throw .fromQueue("ssl_version") }
            return
        case 3: only = TLS1_VERSION
        case 4: only = TLS1_1_VERSION
        case 5: only = TLS1_2_VERSION
        case .some(let other): throw TLSFailure("ssl_version: \(other) is none of 2, 3, 4, 5")
        }
        // These two sign with SHA-1, which OpenSSL has at no other level.
        if only != TLS1_2_VERSION { SSL_CTX_set_security_level(context.ctx, 0) }
        guard tp_SSL_CTX_set_min_proto_version(context.ctx, only) == 1,
            tp_SSL_CTX_set_max_proto_version(context.ctx, only) == 1
        else { throw .fromQueue("ssl_version") }
    }

    private static func setCertificate(_ arguments: TLSArguments, _ context: TLSContext) throws(TLSFailure) {
        guard let path = arguments.certificateFile else {
            guard let path = arguments.keyFile else { return }
            throw TLSFailure("\(path): a keyfile needs a certfile")
        }
        do throws(Errno) {
            try Process.hideMemory()
        } catch {
            throw TLSFailure("hiding the key: \(error)", errno: error)
        }
        var chain = try bytes(of: path)
        defer { chain.wipe() }
        let keyPath = arguments.keyFile ?? path
        var key = keyPath == path ? chain : try bytes(of: keyPath)
        defer { key.wipe() }
        try context.use(
            try PEMReader(chain, name: path).certificates(), try PEMReader(key, name: keyPath).privateKey(), name: path)
    }

    /// What is in a file. No FIFO or device holds the worker. The C function is `read`.
    private static func bytes(of path: String) throws(TLSFailure) -> [UInt8] {
        do throws(RegularFile.Failure) {
            let file = try RegularFile(path: path)
            return try bytes(of: file)
        } catch {
            switch error {
            case .system(let errno): throw TLSFailure("\(path): \(errno)", errno: errno)
            case .notRegular: throw TLSFailure("\(path): not a regular file")
            }
        }
    }

    private static func bytes(of file: borrowing RegularFile) throws(RegularFile.Failure) -> [UInt8] {
        // One more than is allowed, to see that there is more.
        var bytes = [UInt8](repeating: 0, count: min(Int(clamping: file.size), Limits.remoteFileBytesMax) &+ 1)
        var count = 0
        while count < bytes.count {
            let result = bytes.withUnsafeMutableBytes { bytes in
                Glibc.read(file.descriptor.raw, bytes.baseAddress.map { $0 + count }, bytes.count &- count)
            }
            if result == 0 { break }
            guard result > 0 else {
                let error = Errno(rawValue: errno)
                if error == .interrupted { continue }
                throw .system(error)
            }
            count &+= result
        }
        guard count <= Limits.remoteFileBytesMax else { throw .system(.fileTooLarge) }
        bytes.removeLast(bytes.count &- count)
        return bytes
    }
}

extension TLSSession {
    /// Begins TLS with a remote on a connected socket, which stays the caller's.
    public init(
        remote: RemoteTLS, host: Endpoint, socket: Int32, wire: borrowing TLSWire
    ) throws(TLSFailure) {
        guard let session = TLSSession(try remote.makeSession(to: host), socket, wire)
        else { throw .fromQueue("TLS cannot be set up") }
        self = session
    }
}

/// Whom to verify a certificate against.
private enum PeerName {
    /// A name that can be sent, without a final dot.
    case host(String)
    /// 4 or 16 bytes.
    case address([UInt8])

    /// Reads a name or an address. OpenSSL would take a first dot for any name that ends so, and read only up to a NUL.
    init?(_ text: String) {
        if let address = IPv4Address(text) {
            self.init(address)
        } else if let address = IPv6Address(text) {
            self.init(address)
        } else {
            guard let name = hostName(Array(text.utf8)), !name.hasPrefix(".") else { return nil }
            self = .host(name)
        }
    }

    /// Nil for a Unix socket, and for a name that no certificate can have.
    init?(_ remote: Endpoint) {
        switch remote {
        case .name(let name, _): self.init(name)
        case .ipv4(let address, _): self.init(address)
        case .ipv6(let address, _): self.init(address)
        case .unix: return nil
        }
    }

    private init(_ address: IPv4Address) { self = .address(address.bits.bigEndianBytes) }

    private init(_ address: IPv6Address) {
        if let v4 = address.mappedIPv4 {
            self.init(v4)
        } else {
            self = .address(address.high.bigEndianBytes + address.low.bigEndianBytes)
        }
    }
}

extension FixedWidthInteger {
    fileprivate var bigEndianBytes: [UInt8] { withUnsafeBytes(of: bigEndian) { [UInt8]($0) } }
}

/// `RemoteTLS` by arguments, for a worker. What could not be made is tried again the next time: its file may be there then.
public final class RemoteTLSCache {
    private struct Entry {
        let remote: RemoteTLS
        /// Grows with each use.
        var lastUse: UInt64
    }

    private var entries: [TLSArguments: Entry] = [:]
    private var uses: UInt64 = 0
    private var authorities = SystemAuthorities()

    public init() {}

    /// The one for these arguments, made if it is not there.
    public func find(_ arguments: TLSArguments) throws(TLSFailure) -> RemoteTLS {
        uses &+= 1
        if let remote = entries[arguments]?.remote {
            entries[arguments]?.lastUse = uses
            return remote
        }
        let remote = try RemoteTLS(arguments, authorities: authorities)
        if entries.count >= Limits.remoteArgumentsMax,
            let oldest = entries.min(by: { $0.value.lastUse < $1.value.lastUse })
        {
            entries[oldest.key] = nil
        }
        entries[arguments] = Entry(remote: remote, lastUse: uses)
        return remote
    }

    /// Reads all files again when they are needed next, those of the system's authorities too. Connections go on as
    /// they are.
    public func forget() {
        entries = [:]
        authorities = SystemAuthorities()
    }
}
