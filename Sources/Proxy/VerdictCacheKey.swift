// The keys of the verdict cache: bytes, so that one way of comparing serves all kinds of key.

import Addressing
import Config
import Glibc
import Linux
import RouterProtocol
import TLS

/// What of a connection a key can be made of, beside its initial bytes.
struct CacheSubject {
    /// The number of its listener among the worker's.
    var listener: Int
    var client: SocketAddress
    /// Read from the bytes that are lent with it; nil unless it is complete.
    var hello: ClientHello?
    /// The name that a client whose TLS ends here has asked for.
    var serverName: String?
}

/// One set of parts is one kind of key. Its bytes: the kind, the listener, then those it has of client, host and sni, each
/// after its length, and data at the end.
struct CacheKey: Hashable {
    /// The kinds are the raw values of `CacheParts`, from 0.
    static let kinds = 16
    private static let headBytes = 3

    private(set) var bytes: [UInt8] = []

    var parts: CacheParts { CacheParts(rawValue: bytes.first ?? 0) }
    var listener: Int { bytes.count >= Self.headBytes ? Int(bytes[1]) &<< 8 | Int(bytes[2]) : 0 }

    init() {}

    /// The key that has this part alone, with a value as `value` makes it.
    init(_ value: [UInt8], as part: CachePart, listener: Int) {
        begin(CacheParts(part), listener)
        if part == .data {
            bytes.append(contentsOf: value)
        } else {
            let start = beginPart()
            bytes.append(contentsOf: value)
            endPart(start)
        }
    }

    /// Hashed with the process's own seed: clients choose keys, and must not be able to make them collide.
    func hash(into hasher: inout Hasher) {
        unsafe bytes.withUnsafeBytes { unsafe hasher.combine(bytes: $0) }
    }

    static func == (left: CacheKey, right: CacheKey) -> Bool {
        let count = left.bytes.count
        guard count == right.bytes.count else { return false }
        return unsafe left.bytes.withUnsafeBytes { left in
            unsafe right.bytes.withUnsafeBytes { right in
                guard let left = left.baseAddress, let right = right.baseAddress else { return true }
                return unsafe memcmp(left, right, count) == 0
            }
        }
    }

    /// The host of the request, looked for once for all kinds of key.
    enum Host {
        case notLookedFor, none
        case at(Range<Int>)

        fileprivate mutating func find(in data: Span<UInt8>) -> Range<Int>? {
            if case .notLookedFor = self { self = data.requestHost().map { .at($0) } ?? .none }
            if case .at(let range) = self { return range }
            return nil
        }
    }

    /// Makes the key of one kind in the memory that is there; false when one of its parts is not known.
    mutating func make(
        _ kind: CacheParts, _ subject: CacheSubject, _ host: inout Host, in data: Span<UInt8>
    ) -> Bool {
        begin(kind, subject.listener)
        if kind.contains(.client) {
            let start = beginPart()
            guard subject.client.append(to: &bytes) else { return false }
            endPart(start)
        }
        if kind.contains(.host) {
            guard let range = host.find(in: data) else { return false }
            let start = beginPart()
            unsafe data.extracting(range).withUnsafeBufferPointer { unsafe bytes.append(contentsOf: $0) }
            bytes.lowerLetters(from: start)
            endPart(start)
        }
        if kind.contains(.sni) {
            let start = beginPart()
            if let name = subject.serverName {
                bytes.append(contentsOf: name.utf8)
            } else {
                guard let hello = subject.hello, hello.appendServerName(to: &bytes, in: data) else { return false }
            }
            bytes.lowerLetters(from: start)
            endPart(start)
        }
        if kind.contains(.data) {
            // A longer key would not be kept.
            guard !data.isEmpty, data.count <= Limits.cacheEntryBytesMax else { return false }
            unsafe data.withUnsafeBufferPointer { unsafe bytes.append(contentsOf: $0) }
        }
        return true
    }

    private mutating func begin(_ kind: CacheParts, _ listener: Int) {
        bytes.removeAll(keepingCapacity: true)
        bytes.append(kind.rawValue)
        bytes.append(UInt8(truncatingIfNeeded: listener &>> 8))
        bytes.append(UInt8(truncatingIfNeeded: listener))
    }

    /// Leaves room for the length and returns where the part begins.
    private mutating func beginPart() -> Int {
        bytes.append(0)
        bytes.append(0)
        return bytes.count
    }

    private mutating func endPart(_ start: Int) {
        bytes[start &- 2] = UInt8(truncatingIfNeeded: (bytes.count &- start) &>> 8)
        bytes[start &- 1] = UInt8(truncatingIfNeeded: bytes.count &- start)
    }

    // MARK: What invalidate names

    /// A value as it would lie in a key; nil for one that lies in none.
    static func value(_ value: [UInt8], of part: CachePart) -> [UInt8]? {
        switch part {
        case .sni, .host:
            var name = value
            name.lowerLetters(from: 0)
            return name
        case .client:
            let text = String(decoding: value, as: UTF8.self)
            var address: [UInt8] = []
            if let v4 = IPv4Address(text) {
                _ = SocketAddress.ipv4(v4, port: 0).append(to: &address)
            } else if let v6 = IPv6Address(text) {
                _ = SocketAddress.ipv6(v6, port: 0).append(to: &address)
            } else {
                return nil
            }
            return address
        case .data: return value
        case .listener: return nil
        }
    }

    /// The parts that have their length before them, in their order; data is the rest.
    private static let measured: [(CacheParts, CachePart)] = [(.client, .client), (.host, .host), (.sni, .sni)]

    /// Whether a part of it has this value.
    func has(_ value: [UInt8], as wanted: CachePart) -> Bool {
        var index = Self.headBytes
        for (part, name) in Self.measured where parts.contains(part) {
            guard index &+ 2 <= bytes.count else { return false }
            let start = index &+ 2
            index = start &+ (Int(bytes[index]) &<< 8 | Int(bytes[index &+ 1]))
            guard index <= bytes.count else { return false }
            if name == wanted { return bytes[start..<index].elementsEqual(value) }
        }
        return wanted == .data && parts.contains(.data) && bytes[index...].elementsEqual(value)
    }
}

extension SocketAddress {
    /// Appends the address without its port; false for a Unix socket, where every client is the same nobody.
    fileprivate func append(to key: inout [UInt8]) -> Bool {
        switch self {
        case .ipv4(let address, _): key.append(number: address.bits)
        case .ipv6(let address, _):
            if let v4 = address.mappedIPv4 {
                key.append(number: v4.bits)
            } else {
                key.append(number: address.high)
                key.append(number: address.low)
                key.append(number: address.zone)
            }
        case .unix, .unnamed: return false
        }
        return true
    }
}

extension [UInt8] {
    fileprivate mutating func append(number: some FixedWidthInteger) {
        var shift = number.bitWidth
        while shift > 0 {
            shift &-= 8
            append(UInt8(truncatingIfNeeded: number >> shift))
        }
    }

    /// Names are the same in any case (RFC 4343).
    fileprivate mutating func lowerLetters(from start: Int) {
        for index in start..<Swift.max(start, count) {
            let byte = self[index]
            if (UInt8(ascii: "A")...UInt8(ascii: "Z")).contains(byte) { self[index] = byte | 0x20 }
        }
    }
}
