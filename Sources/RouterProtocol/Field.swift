// One member of an object that is being read: its key, for errors, and the place of its value.

internal import Addressing

struct Field {
    let key: String
    let value: Range<Int>

    init(_ key: String, _ value: Range<Int>) {
        self.key = key
        self.value = value
    }

    func wrongType(_ reason: String) -> ProtocolError { ProtocolError(.wrongType, key: key, reason) }
    func wrongValue(_ reason: String) -> ProtocolError { ProtocolError(.wrongValue, key: key, reason) }

    func boolean(in line: Span<UInt8>) throws(ProtocolError) -> Bool {
        guard line.kind(of: value) == .boolean else { throw wrongType("must be true or false") }
        return line.isTrue(value)
    }

    func integer(in line: Span<UInt8>, from least: Int, to most: Int) throws(ProtocolError) -> Int {
        guard line.kind(of: value) == .number else { throw wrongType("must be a whole number") }
        guard let number = line.integer(of: value), number >= least, number <= most else {
            throw wrongValue(
                most == .max ? "must be a whole number from \(least) on" : "must be a whole number, \(least) to \(most)"
            )
        }
        return number
    }

    /// Seconds, perhaps with a fraction, as milliseconds, rounded up so that a little time is not none.
    func milliseconds(in line: Span<UInt8>) throws(ProtocolError) -> Int {
        guard line.kind(of: value) == .number else { throw wrongType("must be a number of seconds") }
        guard let seconds = line.number(of: value), seconds > 0, seconds <= Double(Self.secondsMax),
            let milliseconds = Int(exactly: (seconds * 1000).rounded(.up))
        else { throw wrongValue("must be more than 0 and at most \(Self.secondsMax) seconds") }
        return max(1, milliseconds)
    }

    /// Longest time a router can ask for: a day. Beyond that it is a mistake.
    static let secondsMax = 86400

    func text(in line: Span<UInt8>, bytesMax: Int) throws(ProtocolError) -> String {
        guard line.kind(of: value) == .string else { throw wrongType("must be a string") }
        guard let text = line.text(of: value), text.utf8.count <= bytesMax else {
            throw wrongValue("must be text of at most \(bytesMax) bytes")
        }
        return text
    }

    /// A file's path.
    func path(in line: Span<UInt8>) throws(ProtocolError) -> String {
        let path = try text(in: line, bytesMax: VerdictLimits.pathBytesMax)
        guard !path.isEmpty, !path.utf8.contains(0) else {
            throw wrongValue("must be a path, not empty and without NUL")
        }
        return path
    }

    /// A list of strings.
    func texts(in line: Span<UInt8>) throws(ProtocolError) -> [String] {
        guard line.kind(of: value) == .array else { throw wrongType("must be a list of strings") }
        var texts: [String] = []
        var elements = JSONCursor(value)
        while let element = try elements.nextElement(in: line) {
            guard line.kind(of: element) == .string else { throw wrongType("must be a list of strings") }
            guard let text = line.text(of: element) else { throw wrongValue("half of a surrogate pair is no text") }
            texts.append(text)
        }
        return texts
    }

    /// A byte string, or a list of them, which is the same as one after the other.
    func bytes(in line: Span<UInt8>) throws(ProtocolError) -> [UInt8] {
        var bytes: [UInt8] = []
        switch line.kind(of: value) {
        case .string:
            try append(value, in: line, to: &bytes)
        case .array:
            var elements = JSONCursor(value)
            while let element = try elements.nextElement(in: line) {
                guard line.kind(of: element) == .string else { throw wrongType("must be a list of byte strings") }
                try append(element, in: line, to: &bytes)
            }
        default:
            throw wrongType("must be a byte string or a list of them")
        }
        return bytes
    }

    private func append(
        _ string: Range<Int>, in line: Span<UInt8>, to bytes: inout [UInt8]
    ) throws(ProtocolError) {
        guard line.appendBytes(of: string, to: &bytes) else {
            throw ProtocolError(
                .notBytes, key: key,
                "a character above U+00FF is no byte: encode the text first, then decode the bytes as latin-1")
        }
    }

    /// Any JSON, as it came.
    func json(in line: Span<UInt8>, bytesMax: Int) throws(ProtocolError) -> [UInt8] {
        guard value.count <= bytesMax else { throw wrongValue("must be at most \(bytesMax) bytes of JSON") }
        var bytes: [UInt8] = []
        bytes.append(line, value)
        return bytes
    }

    /// `"host:port"`, `"[v6]:port"`, `"unix:/path"` or `["host", port]`.
    func endpoint(_ range: Range<Int>, in line: Span<UInt8>) throws(ProtocolError) -> Endpoint {
        switch line.kind(of: range) {
        case .string:
            guard let text = line.text(of: range), let endpoint = Endpoint(text) else { throw noEndpoint() }
            return endpoint
        case .array:
            let (host, port) = try hostAndPort(range, in: line)
            guard let endpoint = Endpoint(host: host, port: port) else { throw noEndpoint() }
            return endpoint
        default:
            throw wrongType("must be \(Self.endpointForms)")
        }
    }

    private static let endpointForms = "\"HOST:PORT\", \"[V6]:PORT\", \"unix:/PATH\" or [\"HOST\", PORT]"

    private func noEndpoint() -> ProtocolError {
        wrongValue("must be \(Self.endpointForms), with a port from 1 to 65535")
    }

    private func hostAndPort(_ range: Range<Int>, in line: Span<UInt8>) throws(ProtocolError) -> (String, UInt16) {
        var elements = JSONCursor(range)
        guard let first = try elements.nextElement(in: line), line.kind(of: first) == .string,
            let second = try elements.nextElement(in: line), line.kind(of: second) == .number,
            try elements.nextElement(in: line) == nil
        else { throw wrongType("a list of two must be [\"HOST\", PORT]") }
        guard let host = line.text(of: first), let number = line.integer(of: second),
            let port = UInt16(exactly: number)
        else { throw noEndpoint() }
        return (host, port)
    }

    /// The address to connect from: an IP address, with a port or without.
    func localAddress(in line: Span<UInt8>) throws(ProtocolError) -> LocalAddress {
        let wrong = wrongValue("must be an IP address, with a port or without: \"10.0.0.1\", \"10.0.0.1:4000\"")
        switch line.kind(of: value) {
        case .string:
            guard let text = line.text(of: value) else { throw wrong }
            if case .some(let address) = Endpoint(text).flatMap({ LocalAddress($0) }) { return address }
            // Without a port: any port will do to have it read.
            guard let address = Endpoint(host: text, port: 1).flatMap({ LocalAddress($0, port: 0) }) else {
                throw wrong
            }
            return address
        case .array:
            let (host, port) = try hostAndPort(value, in: line)
            guard let address = Endpoint(host: host, port: 1).flatMap({ LocalAddress($0, port: port) }) else {
                throw wrong
            }
            return address
        default:
            throw wrongType("must be a string or [\"HOST\", PORT]")
        }
    }
}

extension ProtocolError {
    static func duplicate(_ key: String) -> ProtocolError {
        ProtocolError(.duplicateKey, key: key, "given twice")
    }
}
