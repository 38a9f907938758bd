// What kind of message a router's line is. Verdicts are decoded later, by whoever knows what the question was.

/// One line of a router, sorted.
public enum RouterMessage: Equatable, Sendable {
    /// The answer to a question: the place of its result in the line, for `Verdict.decode` and its like.
    case answer(id: UInt64, result: Range<Int>)
    /// A JSON-RPC error instead of an answer.
    case failure(id: UInt64, code: Int, message: String)
    /// The router is still deciding: move this question's deadline.
    case progress(id: UInt64, milliseconds: Int)
    /// Cached verdicts are no longer right.
    case invalidate(Invalidation)
    /// End these live connections, on all workers.
    case close(CloseOrder)
    /// The end of this rewritten stream, whenever it comes, is meant.
    case streamEnd(token: String)
    /// The rewriter leaves: what it has not been given passes it by.
    case detach(token: String)
    /// A line that does not begin with `{`: something printed by accident.
    case stray
    /// A message that means nothing to anybody, and does no harm.
    case ignored(Ignored)

    public enum Ignored: Equatable, Sendable {
        /// An answer to nothing: simple scripts answer notifications too.
        case nullID
        /// The name is the router's own text, cut and without control characters.
        case unknownMethod(String)
    }

    /// Longest part of a router's error message that is kept, in characters.
    static let errorTextMax = 256

    /// Sorts one line, which comes without its newline. All of it is checked, the parts that are not decoded too.
    public static func parse(_ line: Span<UInt8>) throws(ProtocolError) -> RouterMessage {
        guard line.count > 0, line[0] == UInt8(ascii: "{") else { return .stray }
        let end = try line.endOfValue(from: 0, before: line.count)
        guard line.afterSpace(end, before: line.count) == line.count else {
            throw .notJSON("something follows the object")
        }
        return try Envelope(line, 0..<end).message(in: line)
    }
}

private enum EnvelopeKey: String, WireKey {
    case id, jsonrpc, result, error, method, params

    static let table = makeTable()
}

/// The members of JSON-RPC, by place. Null counts as absent, but for `result`, where it is a verdict.
private struct Envelope {
    enum ID {
        case none, null
        case number(UInt64)
    }

    var id = ID.none
    var result: Range<Int>?
    var error: Range<Int>?
    var method: Range<Int>?
    var params: Range<Int>?

    init(_ line: Span<UInt8>, _ object: Range<Int>) throws(ProtocolError) {
        var isJSONRPC = false
        var seen = SeenKeys()
        var members = JSONCursor(object)
        while let (name, value) = try members.nextMember(in: line) {
            guard let (index, key) = EnvelopeKey.find(name, in: line) else { continue }
            guard seen.insert(index) else { throw .duplicate(key.rawValue) }
            let kind = line.kind(of: value)
            switch key {
            case .id: id = try Self.readID(value, kind, in: line)
            case .jsonrpc: isJSONRPC = kind == .string && line.text(of: value) == "2.0"
            case .result: result = value
            case .error where kind != .null: error = value
            case .method where kind != .null: method = value
            case .params where kind != .null: params = value
            case .error, .method, .params: break
            }
        }
        guard isJSONRPC else { throw ProtocolError(.notJSONRPC, key: "jsonrpc", "must be \"2.0\"") }
    }

    private static func readID(
        _ value: Range<Int>, _ kind: JSONKind, in line: Span<UInt8>
    ) throws(ProtocolError) -> ID {
        if kind == .null { return .null }
        guard kind == .number, let number = line.integer(of: value), let id = UInt64(exactly: number) else {
            throw ProtocolError(.badID, key: "id", "must be the number that the question had")
        }
        return .number(id)
    }

    func message(in line: Span<UInt8>) throws(ProtocolError) -> RouterMessage {
        if let method {
            guard line.kind(of: method) == .string, let name = line.text(of: method) else {
                throw ProtocolError(.notAMessage, key: "method", "must be a string")
            }
            switch id {
            case .none: return try notification(name, in: line)
            case .null: return .ignored(.nullID)
            case .number:
                throw ProtocolError(.routerAsks, key: "method", "a router answers and notifies, but never asks")
            }
        }
        switch id {
        case .null: return .ignored(.nullID)
        case .none: throw ProtocolError(.notAMessage, "neither an id nor a method")
        case .number(let id): return try answer(id, in: line)
        }
    }

    private func answer(_ id: UInt64, in line: Span<UInt8>) throws(ProtocolError) -> RouterMessage {
        guard let error else {
            guard let result else { throw ProtocolError(.notAMessage, "neither a result nor an error") }
            return .answer(id: id, result: result)
        }
        // Version 1 of JSON-RPC writes "result": null beside an error; many libraries still do.
        if let result, line.kind(of: result) != .null {
            throw ProtocolError(.notAMessage, "both a result and an error")
        }
        guard line.kind(of: error) == .object else {
            throw ProtocolError(.notAMessage, key: "error", "must be an object with a code and a message")
        }
        var code: Int?
        var message: String?
        var members = JSONCursor(error)
        while let (name, value) = try members.nextMember(in: line) {
            switch (line.text(of: name), line.kind(of: value)) {
            case ("code", .number): code = line.integer(of: value)
            case ("message", .string): message = line.text(of: value)
            default: break
            }
        }
        guard let code, let message else {
            throw ProtocolError(.notAMessage, key: "error", "must be an object with a code and a message")
        }
        return .failure(id: id, code: code, message: String(message.prefix(RouterMessage.errorTextMax)))
    }

    private func notification(_ name: String, in line: Span<UInt8>) throws(ProtocolError) -> RouterMessage {
        if name == "progress" { return try Parameters(params, name, in: line).progress() }
        if name == "invalidate" { return .invalidate(try Parameters(params, name, in: line).invalidation(in: line)) }
        if name == "close" { return .close(try Parameters(params, name, in: line).closeOrder()) }
        if name == "stream_end" { return .streamEnd(token: try Parameters(params, name, in: line).streamToken()) }
        if name == "detach" { return .detach(token: try Parameters(params, name, in: line).streamToken()) }
        return .ignored(.unknownMethod(ProtocolError.quoted(name)))
    }
}

private enum ParameterKey: String, WireKey {
    case id, seconds, all, key, value, connection, tag, remote, reset, token

    static let table = makeTable()
}

/// The parameters of a notification. Other keys are left for later versions.
private struct Parameters {
    let method: String
    var id: UInt64?
    var milliseconds: Int?
    var all = false
    var reset = false
    var part: CachePart?
    /// Where the value is: how it is read depends on the part.
    var value: Range<Int>?
    /// What is to be closed, as often as it was said.
    var which: [CloseOrder.Which] = []
    var token: String?

    init(_ params: Range<Int>?, _ method: String, in line: Span<UInt8>) throws(ProtocolError) {
        self.method = method
        guard let params, line.kind(of: params) == .object else {
            throw ProtocolError(.badParameters, key: method, "params must be an object")
        }
        var seen = SeenKeys()
        var members = JSONCursor(params)
        while let (name, value) = try members.nextMember(in: line) {
            guard let (index, key) = ParameterKey.find(name, in: line), line.kind(of: value) != .null else { continue }
            guard seen.insert(index) else { throw .duplicate(key.rawValue) }
            do throws(ProtocolError) {
                try read(key, Field(key.rawValue, value), in: line)
            } catch {
                throw ProtocolError(.badParameters, key: "\(method).\(key.rawValue)", error.reason)
            }
        }
    }

    private mutating func read(_ key: ParameterKey, _ field: Field, in line: Span<UInt8>) throws(ProtocolError) {
        switch key {
        case .id: id = UInt64(exactly: try field.integer(in: line, from: 0, to: .max))
        case .seconds: milliseconds = try field.milliseconds(in: line)
        case .all: all = try field.boolean(in: line)
        case .reset: reset = try field.boolean(in: line)
        case .key: if method == "invalidate" { part = try field.cachePart(in: line) }
        case .value: value = field.value
        case .connection: which.append(.connection(try field.text(in: line, bytesMax: CloseOrder.textBytesMax)))
        case .tag: which.append(.tag(try field.text(in: line, bytesMax: CloseOrder.textBytesMax)))
        case .remote: which.append(.remote(try field.text(in: line, bytesMax: CloseOrder.textBytesMax)))
        case .token: token = try field.text(in: line, bytesMax: StreamDirection.tokenBytesMax)
        }
    }

    func progress() throws(ProtocolError) -> RouterMessage {
        guard let id, let milliseconds else {
            throw ProtocolError(.badParameters, key: method, "needs an id and seconds")
        }
        return .progress(id: id, milliseconds: milliseconds)
    }

    func invalidation(in line: Span<UInt8>) throws(ProtocolError) -> Invalidation {
        switch (all, part, value) {
        case (true, nil, nil): return .all
        case (false, let part?, let value?):
            do throws(ProtocolError) {
                return .part(part, value: try Field("value", value).cacheValue(of: part, in: line))
            } catch {
                throw ProtocolError(.badParameters, key: "\(method).value", error.reason)
            }
        default:
            throw ProtocolError(.badParameters, key: method, "needs either \"all\": true or a key and a value")
        }
    }

    func closeOrder() throws(ProtocolError) -> CloseOrder {
        guard let which = which.first, self.which.count == 1 else {
            throw ProtocolError(.badParameters, key: method, "needs one of connection, tag and remote")
        }
        return CloseOrder(which: which, reset: reset)
    }

    func streamToken() throws(ProtocolError) -> String {
        guard let token else { throw ProtocolError(.badParameters, key: method, "needs a token") }
        return token
    }
}
