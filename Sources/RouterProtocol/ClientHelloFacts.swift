// `client_hello` in a question: what a client says that speaks TLS through tproxy, so that no router has to parse it.

/// What is known of a ClientHello.
public struct ClientHelloFacts: Equatable, Sendable {
    public enum State: String, CaseIterable, Sendable {
        /// More bytes are needed to know.
        case needMore = "need_more"
        case complete
        /// It only looked like TLS.
        case notTLS = "not_tls"
        case malformed
        /// It does not fit into the initial bytes.
        case tooLarge = "too_large"
    }

    /// The first so many protocols are told, and of them so many bytes, so that a question stays within its line.
    public static let protocolsMax = 32
    public static let protocolBytesMax = 1024

    public var state: State
    /// As the client sent it, upper case too; never empty.
    public var serverName: String?
    /// A server name came, and it cannot be relied on.
    public var hasUnusableServerName: Bool
    /// Names of the protocols (ALPN), the most wanted first. They need not be text.
    public var protocols: [[UInt8]]

    public init(
        state: State, serverName: String? = nil, hasUnusableServerName: Bool = false, protocols: [[UInt8]] = []
    ) {
        self.state = state
        self.serverName = serverName
        self.hasUnusableServerName = hasUnusableServerName
        self.protocols = protocols
    }

    func append(to line: inout [UInt8]) {
        line.append("{\"state\":")
        line.append(json: state.rawValue)
        if state == .complete {
            line.append(",\"sni\":")
            line.append(json: serverName)
            if hasUnusableServerName { line.append(",\"sni_unusable\":true") }
            line.append(",\"alpn\":[")
            for (index, name) in protocols.enumerated() {
                if index > 0 { line.append(",") }
                line.append(json: name.span)
            }
            line.append("]")
        }
        line.append("}")
    }
}
