// What tproxy tells a router without asking anything.

/// A notification to a router. Each is sent only to routers whose `hello` answer lists its name.
public enum Notice: Equatable, Sendable {
    /// The client has left or the deadline has passed: the answer to this question will be dropped.
    case cancel(id: UInt64, connection: String)
    /// No more questions will come: answer what is open.
    case shutdown
    /// The descriptor named in the answer to this question is in tproxy's hands, or could not be taken: close your copy.
    case taken(id: UInt64)
    /// A connection has ended: what the sockets took each way, how long it lived, and its close reason.
    case closed(
        connection: String, bytesToRemote: UInt64, bytesToClient: UInt64, durationMilliseconds: UInt64, reason: String)
    /// A stream to rewrite: the router connects to the address for streams and says the token there. `extra` is JSON, as it
    /// came in the verdict.
    case rewrite(StreamDirection, token: String, connection: String, extra: [UInt8]?)

    /// Appends the line, newline included.
    public func append(to line: inout [UInt8]) {
        switch self {
        case .cancel(let id, let connection):
            line.append("{\"jsonrpc\":\"2.0\",\"method\":\"cancel\",\"params\":{\"id\":")
            line.append(json: id)
            line.append(",\"connection\":")
            line.append(json: connection)
            line.append("}}\n")
        case .shutdown:
            line.append("{\"jsonrpc\":\"2.0\",\"method\":\"shutdown\"}\n")
        case .taken(let id):
            line.append("{\"jsonrpc\":\"2.0\",\"method\":\"taken\",\"params\":{\"id\":")
            line.append(json: id)
            line.append("}}\n")
        case .closed(let connection, let toRemote, let toClient, let milliseconds, let reason):
            line.append("{\"jsonrpc\":\"2.0\",\"method\":\"closed\",\"params\":{\"connection\":")
            line.append(json: connection)
            line.append(",\"bytes_to_remote\":")
            line.append(json: toRemote)
            line.append(",\"bytes_to_client\":")
            line.append(json: toClient)
            line.append(",\"duration_ms\":")
            line.append(json: milliseconds)
            line.append(",\"reason\":")
            line.append(json: reason)
            line.append("}}\n")
        case .rewrite(let direction, let token, let connection, let extra):
            line.append("{\"jsonrpc\":\"2.0\",\"method\":")
            line.append(json: direction.method)
            line.append(",\"params\":{\"token\":")
            line.append(json: token)
            line.append(",\"direction\":")
            line.append(json: direction.rawValue)
            line.append(",\"connection\":")
            line.append(json: connection)
            if let extra {
                line.append(",\"extra\":")
                line.append(contentsOf: extra)
            }
            line.append("}}\n")
        }
    }
}
