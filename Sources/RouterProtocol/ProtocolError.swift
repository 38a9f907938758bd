// What can be wrong with something a router wrote. protocol/README.md lists the same faults; a test compares the two.

/// The kinds of fault. The raw value is the name by which logs, documents and examples call it.
public enum Fault: String, CaseIterable, Sendable {
    // A line that is no message.
    case lineTooLong = "line_too_long"
    case notJSON = "not_json"
    case tooDeep = "too_deep"
    case notJSONRPC = "not_jsonrpc"
    case badID = "bad_id"
    case notAMessage = "not_a_message"
    case routerAsks = "router_asks"
    case badParameters = "bad_parameters"
    // An answer that cannot be carried out.
    case notAnObject = "not_an_object"
    case decidesNothing = "decides_nothing"
    case unknownKey = "unknown_key"
    case duplicateKey = "duplicate_key"
    case wrongType = "wrong_type"
    case wrongValue = "wrong_value"
    case notBytes = "not_bytes"
    case conflict = "conflict"
    case newerProtocol = "newer_protocol"

    /// The number under which protocol/README.md explains the fault: 1 to 19 for lines, from 20 on for answers.
    public var number: Int {
        switch self {
        case .lineTooLong: 1
        case .notJSON: 2
        case .tooDeep: 3
        case .notJSONRPC: 4
        case .badID: 5
        case .notAMessage: 6
        case .routerAsks: 7
        case .badParameters: 8
        case .notAnObject: 20
        case .decidesNothing: 21
        case .unknownKey: 22
        case .duplicateKey: 23
        case .wrongType: 24
        case .wrongValue: 25
        case .notBytes: 26
        case .conflict: 27
        case .newerProtocol: 28
        }
    }
}

/// Why a line or an answer was refused: the one error of this module.
public struct ProtocolError: Error, Equatable, Sendable, CustomStringConvertible {
    public let fault: Fault
    /// The key whose value is wrong. It may come from the router, and is then cut and free of control characters.
    public let key: String?
    /// What would have been right, as the end of a sentence.
    public let reason: String

    init(_ fault: Fault, key: String? = nil, _ reason: String) {
        self.fault = fault
        self.key = key
        self.reason = reason
    }

    public var description: String {
        guard let key else { return reason }
        return "\(key): \(reason)"
    }
}

extension ProtocolError {
    /// Longest piece of a router's own text that an error quotes, in characters.
    private static let quotedMax = 40

    /// A router's own text, made fit for one line of a log.
    static func quoted(_ text: String) -> String {
        var quoted = ""
        for (count, scalar) in text.unicodeScalars.enumerated() {
            if count == quotedMax { return quoted + "…" }
            let isControl = scalar.value < 0x20 || (0x7f...0x9f).contains(scalar.value)
            quoted.unicodeScalars.append(isControl ? "?" : scalar)
        }
        return quoted
    }
}
