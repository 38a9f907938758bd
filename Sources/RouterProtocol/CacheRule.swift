// What a router says about answering the next connection without it.

internal import Addressing

/// What a cached verdict can be kept by. The listener is always a part of it.
public enum CachePart: String, CaseIterable, Sendable {
    /// The server name of a client that speaks TLS.
    case sni
    /// The host of an HTTP/1 request, without port.
    case host
    /// The client's address, without port.
    case client
    case listener
    /// All the bytes of the question.
    case data
}

/// Several of them.
public struct CacheParts: OptionSet, Hashable, Sendable {
    public let rawValue: UInt8
    public init(rawValue: UInt8) { self.rawValue = rawValue }

    public static let listener: CacheParts = []
    public static let client = CacheParts(rawValue: 1)
    public static let host = CacheParts(rawValue: 2)
    public static let sni = CacheParts(rawValue: 4)
    public static let data = CacheParts(rawValue: 8)

    public init(_ part: CachePart) {
        switch part {
        case .sni: self = .sni
        case .host: self = .host
        case .client: self = .client
        case .listener: self = .listener
        case .data: self = .data
        }
    }
}

/// `cache` in a verdict: use it for the next connection with an equal key as well.
public struct CacheRule: Equatable, Sendable {
    public var key: CacheParts
    public var milliseconds: Int

    public init(key: CacheParts, milliseconds: Int) {
        self.key = key
        self.milliseconds = milliseconds
    }
}

/// The notification `invalidate`: which cached verdicts to drop.
public enum Invalidation: Equatable, Sendable {
    case all
    /// Those whose key has this part with this value, whatever else is in it: text as UTF-8, or the bytes of `data`.
    case part(CachePart, value: [UInt8])

    /// Longer values belong to no key that is kept.
    public static let valueBytesMax = 65536
}

private enum CacheRuleKey: String, WireKey {
    case key, ttl

    static let table = makeTable()
}

extension Field {
    func cacheRule(in line: Span<UInt8>) throws(ProtocolError) -> CacheRule {
        guard line.kind(of: value) == .object else { throw wrongType("must be an object with a key and a ttl") }
        var parts: CacheParts?
        var milliseconds: Int?
        var seen = SeenKeys()
        var members = JSONCursor(value)
        while let (name, place) = try members.nextMember(in: line) {
            guard let (index, member) = CacheRuleKey.find(name, in: line) else {
                let unknown = ProtocolError.quoted(line.text(of: name) ?? "?")
                throw ProtocolError(.unknownKey, key: "\(key).\(unknown)", "no such key")
            }
            let field = Field("\(key).\(member.rawValue)", place)
            guard seen.insert(index) else { throw .duplicate(field.key) }
            if line.kind(of: place) == .null { continue }
            switch member {
            case .key: parts = try field.cacheParts(in: line)
            case .ttl: milliseconds = try field.milliseconds(in: line)
            }
        }
        guard let parts, let milliseconds else { throw wrongValue("must have a key and a ttl") }
        return CacheRule(key: parts, milliseconds: milliseconds)
    }

    /// One part by name, or a list of them.
    private func cacheParts(in line: Span<UInt8>) throws(ProtocolError) -> CacheParts {
        if line.kind(of: value) == .string { return CacheParts(try cachePart(value, in: line)) }
        guard line.kind(of: value) == .array else { throw wrongType("must be \(Self.partForms) or a list of these") }
        var parts: CacheParts = []
        var count = 0
        var elements = JSONCursor(value)
        while let element = try elements.nextElement(in: line) {
            guard line.kind(of: element) == .string else { throw wrongType("must be a list of \(Self.partForms)") }
            parts.formUnion(CacheParts(try cachePart(element, in: line)))
            count &+= 1
        }
        guard (1...CachePart.allCases.count).contains(count) else {
            throw wrongValue("must list 1 to \(CachePart.allCases.count) of \(Self.partForms)")
        }
        return parts
    }

    private static let partForms = "\"sni\", \"host\", \"client\", \"listener\", \"data\""

    private func cachePart(_ range: Range<Int>, in line: Span<UInt8>) throws(ProtocolError) -> CachePart {
        guard let name = line.text(of: range), let part = CachePart(rawValue: name) else {
            throw wrongValue("must be \(Self.partForms) or a list of these")
        }
        return part
    }

    /// The part that an `invalidate` names.
    func cachePart(in line: Span<UInt8>) throws(ProtocolError) -> CachePart {
        guard line.kind(of: value) == .string else { throw wrongType("must be a string") }
        return try cachePart(value, in: line)
    }

    /// The value that an `invalidate` gives to a part.
    func cacheValue(of part: CachePart, in line: Span<UInt8>) throws(ProtocolError) -> [UInt8] {
        switch part {
        case .data:
            guard line.kind(of: value) == .string else { throw wrongType("must be a byte string") }
            let value = try bytes(in: line)
            guard value.count <= Invalidation.valueBytesMax else {
                throw wrongValue("must be at most \(Invalidation.valueBytesMax) bytes")
            }
            return value
        case .client:
            let address = try text(in: line, bytesMax: Invalidation.valueBytesMax)
            guard IPv4Address(address) != nil || IPv6Address(address) != nil else {
                throw wrongValue("must be an IP address without a port")
            }
            return Array(address.utf8)
        case .sni, .host, .listener: return Array(try text(in: line, bytesMax: Invalidation.valueBytesMax).utf8)
        }
    }
}
