// What arbiter and worker say to each other, as text that strace shows:
//
//     1 17 reload 4            version, number, word, and the rest of the message is the word's value
//     1 17 reloadFailed route.py: SyntaxError …
//
// The arbiter numbers its commands; a report that answers one carries its number, any other 0. A word that a version
// does not know is an error value, not the end: the two sides may be of different versions after an upgrade.

/// What the arbiter tells a worker.
public enum Command: Hashable, Sendable {
    /// Accept what is queued as far as there is room, close the listeners, finish what is open, exit with status 0.
    /// However long that takes. Others go on accepting.
    case drain
    /// The same, but nobody else will accept what is queued: take all of it, more than there is room for otherwise.
    case drainLast
    /// Close everything and exit with status 0, at once.
    case stop
    /// Start a new router and, when it has answered `hello`, let it take over from the old one, which goes on if the
    /// new one fails. Its generation is told to it.
    case reload(generation: UInt64)
    /// Open the log files anew.
    case reopenLogs
    /// There are several workers now: take your turn at the listeners.
    case shareListeners
    /// New connections get the certificates, keys and ticket keys in the `TLSParcel` that comes with it.
    case renewTLS
    /// Session tickets are sealed with the ticket keys in that parcel; its certificates are those that the worker has.
    case renewTicketKeys
    /// What a router of another worker has told its own and all should know: the line as it came.
    case told(String)
}

/// What a worker tells the arbiter.
public enum Report: Hashable, Sendable {
    /// The router has answered `hello` and the worker accepts.
    case ready
    /// It cannot serve; it exits with status 3 next.
    case bootFailed(String)
    /// Answers `reload`: new questions go to the new router.
    case reloaded
    /// Answers `reload`: the old router goes on.
    case reloadFailed(String)
    /// Answers `reopenLogs`.
    case logsReopened
    /// Answers `renewTLS` and `renewTicketKeys`.
    case tlsRenewed
    /// Answers them: new connections get what they got before.
    case tlsNotRenewed(String)
    /// A log could not be opened, for this reason; it goes on without.
    case logRefused(String)
    /// Answers `drain`; or, with number 0, it was told by a signal or does so for a reason of its own.
    case draining
    /// Tell all other workers what a router here has said: the line as it came.
    case tellOthers(String)
}

/// Something that fits into one control message.
public protocol ControlMessage: Hashable, Sendable {
    /// The word that stands for it and the value that follows.
    var words: (word: String, value: String) { get }
    /// Nil when this version does not know the word or the value makes no sense.
    init?(word: Substring, value: Substring)
}

extension Command: ControlMessage {
    public var words: (word: String, value: String) {
        switch self {
        case .drain: ("drain", "")
        case .drainLast: ("drainLast", "")
        case .stop: ("stop", "")
        case .reload(let generation): ("reload", String(generation))
        case .reopenLogs: ("reopenLogs", "")
        case .shareListeners: ("shareListeners", "")
        case .renewTLS: ("renewTLS", "")
        case .renewTicketKeys: ("renewTicketKeys", "")
        case .told(let line): ("told", line)
        }
    }

    public init?(word: Substring, value: Substring) {
        switch word {
        case "drain": self = .drain
        case "drainLast": self = .drainLast
        case "stop": self = .stop
        case "reload":
            guard let generation = UInt64(value) else { return nil }
            self = .reload(generation: generation)
        case "reopenLogs": self = .reopenLogs
        case "shareListeners": self = .shareListeners
        case "renewTLS": self = .renewTLS
        case "renewTicketKeys": self = .renewTicketKeys
        case "told": self = .told(String(value))
        default: return nil
        }
    }
}

extension Report: ControlMessage {
    public var words: (word: String, value: String) {
        switch self {
        case .ready: ("ready", "")
        case .bootFailed(let reason): ("bootFailed", reason)
        case .reloaded: ("reloaded", "")
        case .reloadFailed(let reason): ("reloadFailed", reason)
        case .logsReopened: ("logsReopened", "")
        case .tlsRenewed: ("tlsRenewed", "")
        case .tlsNotRenewed(let reason): ("tlsNotRenewed", reason)
        case .logRefused(let reason): ("logRefused", reason)
        case .draining: ("draining", "")
        case .tellOthers(let line): ("tellOthers", line)
        }
    }

    public init?(word: Substring, value: Substring) {
        switch word {
        case "ready": self = .ready
        case "bootFailed": self = .bootFailed(String(value))
        case "reloaded": self = .reloaded
        case "reloadFailed": self = .reloadFailed(String(value))
        case "logsReopened": self = .logsReopened
        case "tlsRenewed": self = .tlsRenewed
        case "tlsNotRenewed": self = .tlsNotRenewed(String(value))
        case "logRefused": self = .logRefused(String(value))
        case "draining": self = .draining
        case "tellOthers": self = .tellOthers(String(value))
        default: return nil
        }
    }
}

/// A message with its number: that of a command, or of the command a report answers.
public struct Numbered<Message: ControlMessage>: Hashable, Sendable {
    /// 0 for a report that answers nothing.
    public let number: UInt32
    public let message: Message

    public init(number: UInt32, message: Message) {
        self.number = number
        self.message = message
    }
}

/// Why a control message was not understood.
public enum ControlError: Error, Hashable, Sendable, CustomStringConvertible {
    case otherVersion(String)
    /// Its beginning, for the log.
    case unreadable(String)
    case tooLong

    public var description: String {
        switch self {
        case .otherVersion(let version): "a control message of version \(version), not \(ControlCodec.version)"
        case .unreadable(let text): "a control message that is not understood: \(text)"
        case .tooLong: "a control message of more than \(ControlCodec.bytesMax) bytes"
        }
    }
}

/// Control messages as bytes.
public enum ControlCodec {
    public static let version: UInt32 = 1
    /// A reason is the last thing a router or worker said: a few lines, never a flood.
    public static let bytesMax = 8192
    private static let shownMax = 80

    /// The bytes of a message; a value that is too long is cut.
    public static func encode(_ numbered: Numbered<some ControlMessage>) -> [UInt8] {
        let (word, value) = numbered.message.words
        let bytes = Array("\(version) \(numbered.number) \(word) \(value)".utf8)
        return Array(bytes.prefix(bytesMax))
    }

    /// Reads one message; whatever comes, it never traps.
    public static func decode<Message: ControlMessage>(
        _ bytes: some Collection<UInt8>, as type: Message.Type = Message.self
    ) throws(ControlError) -> Numbered<Message> {
        guard bytes.count <= bytesMax else { throw .tooLong }
        let text = String(decoding: bytes, as: UTF8.self)
        let parts = text.split(separator: " ", maxSplits: 3, omittingEmptySubsequences: false)
        guard parts.count == 4, let version = UInt32(parts[0]) else { throw .unreadable(shown(text)) }
        guard version == Self.version else { throw .otherVersion(shown(String(parts[0]))) }
        guard let number = UInt32(parts[1]), let message = Message(word: parts[2], value: parts[3])
        else { throw .unreadable(shown(text)) }
        return Numbered(number: number, message: message)
    }

    private static func shown(_ text: String) -> String {
        String(text.unicodeScalars.prefix(shownMax).map { $0.value < 32 || $0.value == 127 ? " " : Character($0) })
    }
}
