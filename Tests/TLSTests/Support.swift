// Builds hellos of any form, reads them, and compares.

import TLS
import Testing

func hex(_ text: String) -> [UInt8] {
    let digits = Array(text.utf8).map { UInt8(Character(Unicode.Scalar($0)).hexDigitValue ?? 0) }
    return stride(from: 0, to: digits.count - 1, by: 2).map { digits[$0] << 4 | digits[$0 + 1] }
}

/// What was read, with the values in place of their places.
struct Reading: Equatable {
    var state: ClientHelloReader.State
    var name: String?
    var protocols: [String] = []
    var versions: ClientHello.Versions = []
    var hasUnusableName = false
}

extension ClientHelloReader {
    mutating func read(_ bytes: [UInt8], first count: Int) -> State { read(bytes.span.extracting(first: count)) }

    func reading(_ bytes: [UInt8]) -> Reading {
        guard let hello else { return Reading(state: state) }
        let protocols = hello.protocolNames(in: bytes.span, countMax: 100, bytesMax: 10000)
        return Reading(
            state: state, name: hello.serverName(in: bytes.span),
            protocols: protocols.map { String(decoding: $0, as: UTF8.self) }, versions: hello.versions,
            hasUnusableName: hello.hasUnusableServerName)
    }
}

/// Reads all bytes at once.
func read(_ bytes: [UInt8], bytesMax: Int = 65536) -> Reading {
    var reader = ClientHelloReader(bytesMax: bytesMax)
    _ = reader.read(bytes.span)
    return reader.reading(bytes)
}

/// Reads the first so many bytes, then all of them.
func read(_ bytes: [UInt8], first: Int) -> (first: ClientHelloReader.State, all: Reading) {
    var reader = ClientHelloReader(bytesMax: 65536)
    let state = reader.read(Array(bytes[..<first]).span)
    _ = reader.read(bytes.span)
    return (state, reader.reading(bytes))
}

func long(_ bytes: [UInt8]) -> [UInt8] { [UInt8(bytes.count >> 8), UInt8(bytes.count & 255)] + bytes }
func short(_ bytes: [UInt8]) -> [UInt8] { [UInt8(bytes.count)] + bytes }

func serverName(_ name: [UInt8], kind: UInt8 = 0) -> [UInt8] { [kind] + long(name) }

/// A hello in parts, all of them changeable.
struct Draft {
    var version: [UInt8] = [3, 3]
    var sessionID: [UInt8] = [UInt8](repeating: 7, count: 32)
    var suites: [UInt8] = [0x13, 1, 0x13, 2]
    var compressions: [UInt8] = [0]
    var extensions: [(type: Int, value: [UInt8])] = []
    var hasExtensions = true

    static func named(_ name: String) -> Draft {
        var draft = Draft()
        draft.extensions = [(0, long(serverName(Array(name.utf8))))]
        return draft
    }

    var body: [UInt8] {
        var bytes = version + [UInt8](repeating: 9, count: 32) + short(sessionID) + long(suites) + short(compressions)
        if hasExtensions {
            bytes += long(extensions.flatMap { [UInt8($0.type >> 8), UInt8($0.type & 255)] + long($0.value) })
        }
        return bytes
    }

    var bytes: [UInt8] { record(message(body)) }
}

/// A handshake message.
func message(_ body: [UInt8], type: UInt8 = 1) -> [UInt8] {
    [type, UInt8(body.count >> 16)] + long(body, wrapping: true)
}

private func long(_ bytes: [UInt8], wrapping: Bool) -> [UInt8] {
    [UInt8(bytes.count >> 8 & 255), UInt8(bytes.count & 255)] + bytes
}

func record(_ payload: [UInt8]) -> [UInt8] { [22, 3, 1] + long(payload, wrapping: true) }

/// The message of a hello in one record, put into several that end at these places, as far as there are such.
func split(_ hello: [UInt8], at places: [Int]) -> [UInt8] {
    let payload = Array(hello.dropFirst(5))
    var start = 0
    var bytes: [UInt8] = []
    for place in places + [payload.count] where place > start && place <= payload.count {
        bytes += record(Array(payload[start..<place]))
        start = place
    }
    return bytes
}

/// A captured hello as a browser of today sends it: GREASE in every list (RFC 8701), and a key share for X25519MLKEM768.
func postQuantum(_ captured: [UInt8]) -> [UInt8] {
    var rest = captured.dropFirst(5 + 4)
    func take(_ count: Int) -> [UInt8] {
        defer { rest = rest.dropFirst(count) }
        return Array(rest.prefix(count))
    }
    func takeShort() -> [UInt8] { take(Int(take(1)[0])) }
    func takeLong() -> [UInt8] {
        let length = take(2)
        return take(Int(length[0]) << 8 | Int(length[1]))
    }
    var draft = Draft()
    draft.version = take(2)
    _ = take(32)
    draft.sessionID = takeShort()
    draft.suites = [0x2a, 0x2a] + takeLong()
    draft.compressions = takeShort()
    draft.extensions = [(0x3a3a, [])]
    _ = take(2)
    while !rest.isEmpty {
        let type = take(2)
        var value = takeLong()
        switch type[1] {
        case 43: value = short([0x4a, 0x4a] + value.dropFirst())
        case 51:
            let grease: [UInt8] = [0x5a, 0x5a, 0, 1, 0]
            let large = [0x11, 0xec] + long([UInt8](repeating: 0xab, count: 1216))
            value = long(grease + large + value.dropFirst(2))
        case 16: value = long(short([0x6a, 0x6a]) + value.dropFirst(2))
        default: break
        }
        draft.extensions.append((Int(type[0]) << 8 | Int(type[1]), value))
    }
    // What stands where an encrypted hello would (draft-ietf-tls-esni), of a length that is usual.
    draft.extensions.append((0xfe0d, [UInt8](repeating: 0xcd, count: 186)))
    draft.extensions.append((0x7a7a, [0]))
    return draft.bytes
}
