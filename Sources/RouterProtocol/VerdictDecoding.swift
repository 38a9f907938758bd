// How a verdict is read: every key is checked, whether it applies or not; then the keys together decide.

internal import Addressing

/// The keys of a verdict.
public enum VerdictKey: String, CaseIterable, Sendable {
    case remote, close, file, remotes, data, reply
    case replyWhen = "reply_when"
    case consume, state, wait, ssl
    case sslArgs = "ssl_args"
    case connectTimeout = "connect_timeout"
    case inactivityTimeout = "inactivity_timeout"
    case extra, rewrite
    case proxyProtocol = "proxy_protocol"
    case bind, tags, note, reset, attached, offset, nbytes, cache
}

extension VerdictKey: WireKey {
    static let table = makeTable()
}

extension Verdict {
    /// Reads the result of `proxy`. `result` is a place in a line that `RouterMessage.parse` has found good.
    public static func decode(
        _ line: Span<UInt8>, _ result: Range<Int>, limits: VerdictLimits
    ) throws(ProtocolError) -> Verdict {
        switch line.kind(of: result) {
        case .null: return .undecided(waitFor: nil)
        case .object: break
        default: throw ProtocolError(.notAnObject, "a verdict must be an object or null")
        }
        var keys = VerdictKeys()
        var seen = SeenKeys()
        var members = JSONCursor(result)
        while let (name, value) = try members.nextMember(in: line) {
            guard let (index, key) = VerdictKey.find(name, in: line) else {
                let unknown = line.text(of: name) ?? "?"
                throw ProtocolError(.unknownKey, key: ProtocolError.quoted(unknown), "no such key")
            }
            guard seen.insert(index) else { throw .duplicate(key.rawValue) }
            // A null value is an absent key.
            if line.kind(of: value) == .null { continue }
            try keys.read(key, Field(key.rawValue, value), in: line, limits)
        }
        return try keys.verdict()
    }
}

extension DescriptorClaim {
    /// Looks at a result without judging it, for answers that nobody decodes or that were refused.
    public init(_ line: Span<UInt8>, _ result: Range<Int>) {
        self = .none
        guard line.kind(of: result) == .object else { return }
        var members = JSONCursor(result)
        while let (name, value) = try? members.nextMember(in: line) {
            switch VerdictKey.find(name, in: line)?.key {
            case .attached where line.kind(of: value) == .boolean && line.isTrue(value):
                self = .attached
                return
            case .file where line.kind(of: value) == .number: self = .named
            default: break
            }
        }
    }
}

extension ProxyErrorAnswer {
    /// Reads the result of `proxy_error`.
    public static func decode(_ line: Span<UInt8>, _ result: Range<Int>) throws(ProtocolError) -> ProxyErrorAnswer {
        let noBytes = VerdictLimits(dataBytes: 0, initialBytesMax: 1)
        guard line.kind(of: result) != .null else { return .none }
        switch try Verdict.decode(line, result, limits: noBytes) {
        case .close(let verdict): return .close(verdict.bytes)
        case .remote(var verdict):
            // It is what to do after a failure, not what to do.
            verdict.cache = nil
            return .remote(verdict)
        case .file: throw ProtocolError(.wrongValue, key: VerdictKey.file.rawValue, "no answer to proxy_error")
        case .undecided, .exchange: throw .decidesNothing
        }
    }
}

/// The keys of one verdict, each checked by itself.
private struct VerdictKeys {
    enum Close {
        case plain
        case bytes([UInt8])
    }

    enum File {
        case path(String)
        case descriptor(Int32)
    }

    var remote: Endpoint?
    var remotes: [Endpoint]?
    var close: Close?
    var file: File?
    var data: [UInt8]?
    var reply: [UInt8]?
    var replyBefore = false
    var consume: Int?
    var state: [UInt8]?
    var wait: Int?
    var usesTLS = false
    var tls = TLSArgumentsReading()
    var connectTimeoutMilliseconds: Int?
    var inactivityTimeoutMilliseconds: Int?
    var extra: [UInt8]?
    var rewrite = StreamDirections.both
    var proxyProtocol: Int?
    var bind: LocalAddress?
    var labels = Labels()
    var reset = false
    var attached = false
    var offset = 0
    var nbytes: Int?
    var cache: CacheRule?

    mutating func read(
        _ key: VerdictKey, _ field: Field, in line: Span<UInt8>, _ limits: VerdictLimits
    ) throws(ProtocolError) {
        switch key {
        case .remote: remote = try field.endpoint(field.value, in: line)
        case .remotes: remotes = try Self.remotes(field, in: line)
        case .close: close = try Self.close(field, in: line)
        case .file: file = try Self.file(field, in: line)
        case .data: data = try field.bytes(in: line)
        case .reply: reply = try field.bytes(in: line)
        case .replyWhen: replyBefore = try Self.replyBefore(field, in: line)
        case .consume: consume = try field.integer(in: line, from: 0, to: limits.dataBytes)
        case .state: state = try field.json(in: line, bytesMax: VerdictLimits.stateBytesMax)
        case .wait: wait = try field.integer(in: line, from: 1, to: limits.initialBytesMax)
        case .ssl: usesTLS = try field.boolean(in: line)
        case .sslArgs: tls = try field.tlsArguments(in: line)
        case .connectTimeout: connectTimeoutMilliseconds = try field.milliseconds(in: line)
        case .inactivityTimeout: inactivityTimeoutMilliseconds = try field.milliseconds(in: line)
        case .extra: extra = try field.json(in: line, bytesMax: VerdictLimits.extraBytesMax)
        case .rewrite: rewrite = try field.streamDirections(in: line)
        case .proxyProtocol: proxyProtocol = try field.integer(in: line, from: 1, to: 2)
        case .bind: bind = try field.localAddress(in: line)
        case .tags: labels.tags = try Self.tags(field, in: line)
        case .note: labels.note = try field.text(in: line, bytesMax: VerdictLimits.noteBytesMax)
        case .reset: reset = try field.boolean(in: line)
        case .attached: attached = try field.boolean(in: line)
        case .offset: offset = try field.integer(in: line, from: 0, to: .max)
        case .nbytes: nbytes = try field.integer(in: line, from: 0, to: .max)
        case .cache: cache = try field.cacheRule(in: line)
        }
    }

    /// What the keys say together: remote goes before close, close before file, and what does not apply is ignored.
    func verdict() throws(ProtocolError) -> Verdict {
        guard consume == nil || data == nil else { throw .conflict(.consume, .data) }
        guard remote == nil || remotes == nil else { throw .conflict(.remotes, .remote) }
        if cache != nil { try refuseWhatIsForOneClient() }
        if let remotes = remotes ?? remote.map({ [$0] }) { return .remote(try toRemote(remotes)) }
        if let close { return .close(closing(close)) }
        if let file { return .file(try sending(file)) }
        if reply != nil || consume != nil || state != nil {
            return .exchange(Exchange(reply: reply ?? [], consume: consume ?? 0, state: state, waitFor: wait))
        }
        guard let wait else { throw .decidesNothing }
        return .undecided(waitFor: wait)
    }

    private func toRemote(_ remotes: [Endpoint]) throws(ProtocolError) -> RemoteVerdict {
        var verdict = RemoteVerdict(remotes: remotes)
        verdict.data = data
        verdict.reply = reply ?? []
        verdict.replyBefore = replyBefore
        verdict.consume = consume ?? 0
        verdict.connectTimeoutMilliseconds = connectTimeoutMilliseconds
        verdict.inactivityTimeoutMilliseconds = inactivityTimeoutMilliseconds
        verdict.bind = bind
        verdict.proxyProtocol = proxyProtocol
        if usesTLS {
            try refuseNamelessRemotes(remotes)
            verdict.tls = tls.arguments
            verdict.ignoredTLSArguments = tls.ignored
        }
        verdict.extra = extra
        verdict.rewrite = rewrite
        verdict.labels = labels
        verdict.cache = cache
        return verdict
    }

    private func closing(_ close: Close) -> CloseVerdict {
        var verdict =
            switch close {
            case .plain: CloseVerdict(reset: reset)
            case .bytes(let bytes): CloseVerdict(bytes: bytes)
            }
        verdict.labels = labels
        verdict.cache = cache
        return verdict
    }

    private func sending(_ file: File) throws(ProtocolError) -> FileVerdict {
        var verdict =
            switch file {
            case .path(let path): FileVerdict(source: .path(path))
            case .descriptor(let number): FileVerdict(source: .descriptor(number, attached: attached))
            }
        if cache != nil, case .descriptor = file { throw .conflict(.cache, .file) }
        verdict.reply = reply ?? []
        verdict.offset = UInt64(offset.magnitude)
        verdict.nbytes = nbytes.map { UInt64($0.magnitude) }
        verdict.labels = labels
        verdict.cache = cache
        return verdict
    }

    private func refuseNamelessRemotes(_ remotes: [Endpoint]) throws(ProtocolError) {
        guard tls.arguments.verifies, tls.arguments.serverName == nil else { return }
        for case .unix in remotes {
            throw ProtocolError(
                .wrongValue, key: VerdictKey.ssl.rawValue,
                "a Unix socket has no name to verify: give a server_hostname, or a cert_reqs of 0")
        }
    }

    /// What was said to one client must not be said to another.
    private func refuseWhatIsForOneClient() throws(ProtocolError) {
        if data != nil { throw .conflict(.cache, .data) }
        if reply != nil { throw .conflict(.cache, .reply) }
        if state != nil { throw .conflict(.cache, .state) }
        if consume != nil { throw .conflict(.cache, .consume) }
    }
}

extension VerdictKeys {
    private static func remotes(_ field: Field, in line: Span<UInt8>) throws(ProtocolError) -> [Endpoint] {
        guard line.kind(of: field.value) == .array else { throw field.wrongType("must be a list of remotes") }
        var remotes: [Endpoint] = []
        var elements = JSONCursor(field.value)
        while let element = try elements.nextElement(in: line), remotes.count <= VerdictLimits.remotesMax {
            remotes.append(try field.endpoint(element, in: line))
        }
        guard (1...VerdictLimits.remotesMax).contains(remotes.count) else {
            throw field.wrongValue("must list 1 to \(VerdictLimits.remotesMax) remotes")
        }
        return remotes
    }

    /// Nil for `false`, which is as if absent.
    private static func close(_ field: Field, in line: Span<UInt8>) throws(ProtocolError) -> Close? {
        switch line.kind(of: field.value) {
        case .boolean: line.isTrue(field.value) ? .plain : nil
        case .string, .array: .bytes(try field.bytes(in: line))
        default: throw field.wrongType("must be true, a byte string or a list of them")
        }
    }

    private static func file(_ field: Field, in line: Span<UInt8>) throws(ProtocolError) -> File {
        switch line.kind(of: field.value) {
        case .string:
            return .path(try field.path(in: line))
        case .number:
            let number = try field.integer(in: line, from: 0, to: Int(Int32.max))
            return .descriptor(Int32(truncatingIfNeeded: number))
        default:
            throw field.wrongType("must be a path or a descriptor's number")
        }
    }

    private static func replyBefore(_ field: Field, in line: Span<UInt8>) throws(ProtocolError) -> Bool {
        guard line.kind(of: field.value) == .string else { throw field.wrongType("must be a string") }
        switch line.text(of: field.value) {
        case "before": return true
        case "connected": return false
        default: throw field.wrongValue("must be \"before\" or \"connected\"")
        }
    }

    private static func tags(_ field: Field, in line: Span<UInt8>) throws(ProtocolError) -> [String] {
        let tags = try field.texts(in: line)
        guard tags.count <= VerdictLimits.tagsMax,
            tags.allSatisfy({ (1...VerdictLimits.tagBytesMax).contains($0.utf8.count) })
        else {
            throw field.wrongValue(
                "must be at most \(VerdictLimits.tagsMax) tags of 1 to \(VerdictLimits.tagBytesMax) bytes")
        }
        return tags
    }
}

extension ProtocolError {
    static var decidesNothing: ProtocolError { ProtocolError(.decidesNothing, "the answer decides nothing") }
    static func conflict(_ key: VerdictKey, _ other: VerdictKey) -> ProtocolError {
        ProtocolError(.conflict, key: key.rawValue, "not beside \(other.rawValue)")
    }
}
