// The log: a swift-log handler whose lines look like
// `2026-11-23T10:00:00.123Z [pid] [level] [component] message key=value`, or are one JSON object each.

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
        var isColoured: Bool
    }

    private let state: Mutex<State>
    private let path: String
    private let format: LogFormat
    /// That the path could not be opened, when it is standard error that is written to.
    public let refusal: String?
    private let pid = getpid()

    /// Opens a log for appending; `-` is standard error. `mustBeThere`: with a reader, if it is a FIFO; else without, and
    /// standard error is written to while there is no such log.
    public init(path: String, format: LogFormat = .text, mustBeThere: Bool = true) throws(Errno) {
        (self.path, self.format) = (path, format)
        let output = try LineOutput(
            path: path, capacity: Limits.logBufferBytes, readerMayBeAway: !mustBeThere,
            instead: mustBeThere ? nil : Settings.standardError)
        refusal = output.refusal
        let isColoured = format == .text && output.isTerminal && Colour.isWanted
        state = Mutex(State(output: output, isColoured: isColoured))
    }

    /// Opens the log that the options name.
    public convenience init(_ settings: Settings, mustBeThere: Bool = true) throws(Errno) {
        try self.init(path: settings.logFile, format: settings.logFormat, mustBeThere: mustBeThere)
    }

    /// Opens the path anew (USR1, HUP). On failure the old file is written on, and `log` says so; standard error, too, for
    /// the old file may be one that nobody can find any more.
    public func reopen(failuresTo log: Logger) {
        let refusal = state.withLock { state -> String? in
            do throws(Errno) {
                try state.output.reopen()
                state.isColoured = format == .text && state.output.isTerminal && Colour.isWanted
                return nil
            } catch {
                return state.output.refusal(error)
            }
        }
        guard let refusal else { return }
        log.error("\(refusal)")
        guard path != Settings.standardError,
            let standardError = try? LogFile(path: Settings.standardError, format: format)
        else { return }
        var other = log
        other.handler = LogFileHandler(standardError, label: log.label, level: log.logLevel)
        other.error("\(refusal)")
    }

    /// Writes what a slow reader left waiting; for a quiet moment of the loop, and before the end.
    public func flush() {
        state.withLock { state in
            state.output.flush()
            tellLoss(&state)
        }
    }

    func write(_ line: LogLine) {
        state.withLock { state in
            compose(line, &state)
            state.output.append(state.text.bytes)
            state.output.flush()
            tellLoss(&state)
        }
    }

    private func compose(_ line: LogLine, _ state: inout State) {
        state.text.clear()
        switch format {
        case .text: state.text.compose(line, pid: pid, isColoured: state.isColoured, at: .now)
        case .json: state.text.composeJSON(line, pid: pid, at: .now)
        }
    }

    /// Tells of lines that were lost, once writing works again.
    private func tellLoss(_ state: inout State) {
        guard let loss = state.output.takeLoss() else { return }
        let values: [LogLine.Member] = [("lost_lines", .number(loss.lines)), ("reason", .text("\(loss.reason)"))]
        compose(
            LogLine(
                level: .warning, component: nil, message: "the log could not be written for a while", values: values),
            &state)
        state.output.append(state.text.bytes)
        state.output.flush()
    }
}

/// Hands the messages of one `Logger` to the log. The logger's label is its component.
public struct LogFileHandler: LogHandler {
    public var metadata: Logger.Metadata = [:]
    public var logLevel: Logger.Level
    private let log: LogFile
    private let component: String?

    public init(_ log: LogFile, label: String, level: Logger.Level) {
        self.log = log
        // A logger that has the program's name is for the whole of it.
        component = label == Product.name ? nil : label
        logLevel = level
    }

    public subscript(metadataKey key: String) -> Logger.Metadata.Value? {
        get { metadata[key] }
        set { metadata[key] = newValue }
    }

    public func log(event: LogEvent) {
        var all = metadata
        if let more = event.metadata { all.merge(more) { _, new in new } }
        var values = all.map { (key: $0.key, value: LogLine.Value($0.value)) }
        values.sort { $0.key < $1.key }
        if let error = event.error { values.append(("error", .text("\(error)"))) }
        log.write(LogLine(level: event.level, component: component, message: "\(event.message)", values: values))
    }
}

extension Logger {
    /// A logger of one component, from the level on that the options give it.
    public init(_ log: LogFile, _ component: LogComponent, _ settings: Settings) {
        self.init(label: component.rawValue) {
            LogFileHandler(log, label: $0, level: Logger.Level(settings.logLevel(of: component)))
        }
    }

    /// A logger that writes to a log from a level on, for the whole program.
    public init(_ log: LogFile, level: LogLevel) {
        self.init(label: Product.name) { LogFileHandler(log, label: $0, level: Logger.Level(level)) }
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
