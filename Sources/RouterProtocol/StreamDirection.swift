// The two directions of a connection, as far as rewriting goes: which there are, and which a verdict wants rewritten.

/// One direction of a connection that may pass through a rewriter.
public enum StreamDirection: String, CaseIterable, Sendable {
    case toRemote = "to_remote"
    case toClient = "to_client"

    /// The notification that tells a router of a stream to rewrite.
    public var method: String {
        switch self {
        case .toRemote: "rewrite_request"
        case .toClient: "rewrite_response"
        }
    }

    /// Longest token that a router may name: none of ours is as long.
    public static let tokenBytesMax = 64
}

/// Some of the directions, or none.
public struct StreamDirections: OptionSet, Hashable, Sendable {
    public let rawValue: UInt8
    public init(rawValue: UInt8) { self.rawValue = rawValue }

    public static let toRemote = StreamDirections(rawValue: 1)
    public static let toClient = StreamDirections(rawValue: 2)
    public static let both: StreamDirections = [.toRemote, .toClient]

    public init(_ direction: StreamDirection) {
        switch direction {
        case .toRemote: self = .toRemote
        case .toClient: self = .toClient
        }
    }
}

extension HelloAnswer.Methods {
    /// The directions that a router rewrites.
    public var rewrites: StreamDirections {
        var directions: StreamDirections = []
        if contains(.rewriteRequest) { directions.insert(.toRemote) }
        if contains(.rewriteResponse) { directions.insert(.toClient) }
        return directions
    }
}

extension Field {
    /// `true`, `false`, `"request"` or `"response"`: what is left of the directions.
    func streamDirections(in line: Span<UInt8>) throws(ProtocolError) -> StreamDirections {
        switch line.kind(of: value) {
        case .boolean: return line.isTrue(value) ? .both : []
        case .string:
            switch line.text(of: value) {
            case "request": return .toRemote
            case "response": return .toClient
            default: throw wrongValue("must be \"request\", \"response\", true or false")
            }
        default: throw wrongType("must be \"request\", \"response\", true or false")
        }
    }
}
