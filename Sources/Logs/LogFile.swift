// The log for people: a swift-log handler whose lines look like
// `2026-11-23T10:00:00.123Z [pid] [level] message key=value`.

public import Config
import Glibc
public import Logging
import Synchronization
public import SystemPackage

/// The log of one process. Every `Logger` made of its handler writes here.
///
/// The lock is never waited for in the one thread that logs; it is there because swift-log wants handlers to be Sendable.
public final class LogFile: Sendable {
    private struct State: ~Copyable {
        var output: LineOutput
        var text = LineText()
    }

    private let state: Mutex<State>
    private let pid = getpid()

    /// Opens a log for appending; `-` is standard error.
    public init(path: String) throws(Errno) {
        state = Mutex(State(output: try LineOutput(path: path, capacity: Limits.logBufferBytes)))
    }

    /// Opens the path anew (USR1, HUP). On failure the old file is written on.
    public func reopen() throws(Errno) {
        let failure = state.withLock { state -> Errno? in
            do throws(Errno) {
                try state.output.reopen()
                return nil
            } catch {
                return error
            }
        }
        if let failure { throw failure }
    }

    /// Writes what a slow reader left waiting; for a quiet moment of the loop, and before the end.
    public func flush() {
        state.withLock { state in
            state.output.flush()
            tellLoss(&state)
        }
    }

    func write(_ level: Logger.Level, _ message: String, _ values: [(key: String, value: String)]) {
        state.withLock { state in
            compose(&state.text, level, message, values)
            state.output.append(state.text.bytes)
            state.output.flush()
            tellLoss(&state)
        }
    }

    private func compose(
        _ text: inout LineText, _ level: Logger.Level, _ message: String, _ values: [(key: String, value: String)]
    ) {
        text.clear()
        text.append(time: .now)
        text.append(" [")
        text.append(UInt64(clamping: pid))
        text.append("] [")
        text.append(level.rawValue)
        text.append("] ")
        text.append(escaping: message.utf8, most: Limits.logLineBytesMax)
        for (key, value) in values {
            text.append(" ")
            text.append(escaping: key.utf8, most: Limits.logValueBytesMax)
            text.append("=")
            text.append(value: value.utf8, most: Limits.logValueBytesMax)
        }
        text.cut(to: Limits.logLineBytesMax)
        text.end()
    }

    /// Tells of lines that were lost, once writing works again.
    private func tellLoss(_ state: inout State) {
        guard let loss = state.output.takeLoss() else { return }
        compose(&state.text, .warning, "the log could not be written for a while", loss.values)
        state.output.append(state.text.bytes)
        state.output.flush()
    }
}

extension LineOutput.Loss {
    var values: [(key: String, value: String)] { [("lost_lines", String(lines)), ("reason", "\(reason)")] }
}

/// Hands the messages of one `Logger` to the log.
public struct TextLogHandler: LogHandler {
    public var metadata: Logger.Metadata = [:]
    public var logLevel: Logger.Level
    private let log: LogFile

    public init(_ log: LogFile, level: Logger.Level) {
        self.log = log
        logLevel = level
    }

    public subscript(metadataKey key: String) -> Logger.Metadata.Value? {
        get { metadata[key] }
        set { metadata[key] = newValue }
    }

    public func log(event: LogEvent) {
        var all = metadata
        if let more = event.metadata { all.merge(more) { _, new in new } }
        var values = all.map { (key: $0.key, value: "\($0.value)") }
        values.sort { $0.key < $1.key }
        if let error = event.error { values.append(("error", "\(error)")) }
        log.write(event.level, "\(event.message)", values)
    }
}

extension Logger {
    /// A logger that writes to a log from a level on.
    public init(_ log: LogFile, level: LogLevel) {
        self.init(label: Product.name) { _ in TextLogHandler(log, level: Logger.Level(level)) }
    }
}

extension Logger.Level {
    /// The level of the option `--log-level`.
    public init(_ level: LogLevel) {
        self =
            switch level {
            case .debug: .debug
            case .info: .info
            case .warning: .warning
            case .error: .error
            case .critical: .critical
            }
    }
}

extension String {
    /// Bytes from the network as text for a message: control characters and what is not UTF-8 as `\xNN`, cut at `most`.
    public init(showing bytes: some BidirectionalCollection<UInt8>, most: Int = Limits.logValueBytesMax) {
        var text = LineText()
        text.append(escaping: bytes, most: most)
        self = String(decoding: text.bytes, as: UTF8.self)
    }
}
