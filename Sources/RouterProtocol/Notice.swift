// What tproxy tells a router without asking anything.

/// A notification to a router. Each is sent only to routers whose `hello` answer lists its name.
public enum Notice: Equatable, Sendable {
    /// The client has left or the deadline has passed: the answer to this question will be dropped.
    case cancel(id: UInt64, connection: String)
    /// No more questions will come: answer what is open.
    case shutdown
    /// The descriptor named in the answer to this question is in tproxy's hands, or could not be taken: close your copy.
    case taken(id: UInt64)

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
        }
    }
}
