// The access log: one line for each connection when it has ended, gathered during a round of the loop and written at its
// end. A line is formatted without Foundation into bytes that are used again.

public import Addressing
public import Config
public import Logging
public import SystemPackage

/// What is known of a connection when it has ended.
public struct AccessRecord: Sendable {
    /// The connection's id, as routers know it.
    public var id: String
    /// The client, nil on a Unix listener.
    public var client: Endpoint?
    /// The listener's normalised text.
    public var listener: String
    /// The kind of the verdict: `remote`, `close`, `file`, `fallback`, or `none`.
    public var verdict: String
    /// Where it went in the end, nil when no remote was reached.
    public var remote: Endpoint?
    /// Remotes tried.
    public var attempts: Int
    /// From accept to verdict, nil when there was none.
    public var verdictMicroseconds: UInt64?
    /// From verdict to a connected remote, nil when none was.
    public var connectMicroseconds: UInt64?
    /// From accept to the end.
    public var durationMicroseconds: UInt64
    public var bytesToRemote: UInt64
    public var bytesToClient: UInt64
    /// The close reason's name.
    public var reason: String
    /// The verdict's own words.
    public var note: String?

    public init(
        id: String, client: Endpoint?, listener: String, verdict: String, remote: Endpoint?, attempts: Int,
        verdictMicroseconds: UInt64?, connectMicroseconds: UInt64?, durationMicroseconds: UInt64,
        bytesToRemote: UInt64, bytesToClient: UInt64, reason: String, note: String?
    ) {
        (self.id, self.client, self.listener) = (id, client, listener)
        (self.verdict, self.remote, self.attempts) = (verdict, remote, attempts)
        (self.verdictMicroseconds, self.connectMicroseconds) = (verdictMicroseconds, connectMicroseconds)
        self.durationMicroseconds = durationMicroseconds
        (self.bytesToRemote, self.bytesToClient) = (bytesToRemote, bytesToClient)
        (self.reason, self.note) = (reason, note)
    }
}

/// The access log of one worker.
public struct AccessLog: ~Copyable {
    private var output: LineOutput
    private var text = LineText()
    private let format: LogFormat

    /// That the path could not be opened, when nothing is written.
    public var refusal: String? { output.refusal }

    /// Opens the log for appending; `-` is standard error. `mustBeThere`: with a reader, if it is a FIFO; else without, and
    /// nothing is written while there is no such log.
    public init(path: String, format: LogFormat = .text, mustBeThere: Bool = true) throws(Errno) {
        output = try LineOutput(
            path: path, capacity: Limits.accessBufferBytes, readerMayBeAway: !mustBeThere,
            instead: mustBeThere ? nil : "/dev/null")
        self.format = format
    }

    /// Opens the path anew (USR1, HUP). On failure the old file is written on, and `log` says so.
    public mutating func reopen(failuresTo log: Logger) {
        do throws(Errno) {
            try output.reopen()
        } catch {
            log.error("\(output.refusal(error))")
        }
    }

    /// Adds a connection's line; `flush` writes it.
    public mutating func append(_ record: borrowing AccessRecord) {
        text.clear()
        switch format {
        case .text: text.compose(record, at: .now)
        case .json: text.composeJSON(record, at: .now)
        }
        output.append(text.bytes)
    }

    /// Writes the lines of a round, without waiting for anybody; cheap when there are none.
    public mutating func flush() {
        output.flush()
        guard let loss = output.takeLoss() else { return }
        text.clear()
        switch format {
        case .text: text.compose(loss, at: .now)
        case .json: text.composeJSON(loss, at: .now)
        }
        output.append(text.bytes)
        output.flush()
    }
}

// MARK: For people

extension LineText {
    mutating func compose(_ record: borrowing AccessRecord, at time: Timestamp) {
        append(time: time)
        append(" id=")
        append(value: record.id.utf8, most: 64)
        append(" client=")
        append(record.client)
        append(" listener=")
        append(value: record.listener.utf8, most: 128)
        append(" verdict=")
        append(record.verdict)
        append(" remote=")
        append(record.remote)
        append(" attempts=")
        append(UInt64(clamping: record.attempts))
        append(" verdict_ms=")
        append(milliseconds: record.verdictMicroseconds)
        append(" connect_ms=")
        append(milliseconds: record.connectMicroseconds)
        append(" duration_ms=")
        append(milliseconds: record.durationMicroseconds)
        append(" to_remote=")
        append(record.bytesToRemote)
        append(" to_client=")
        append(record.bytesToClient)
        append(" reason=")
        append(record.reason)
        if let note = record.note {
            append(" note=")
            append(value: note.utf8, most: Limits.accessNoteBytesMax)
        }
        end()
    }

    fileprivate mutating func compose(_ loss: LineOutput.Loss, at time: Timestamp) {
        append(time: time)
        append(" lost_lines=")
        append(UInt64(clamping: loss.lines))
        append(" reason=")
        append(value: "\(loss.reason)".utf8, most: Limits.logValueBytesMax)
        end()
    }
}

// MARK: For machines

extension LineText {
    mutating func composeJSON(_ record: borrowing AccessRecord, at time: Timestamp) {
        beginObject(at: time, LogComponent.access.rawValue)
        member("id", record.id, most: 64)
        member("client", record.client)
        member("listener", record.listener, most: 128)
        member("verdict", record.verdict, most: 64)
        member("remote", record.remote)
        member("attempts", UInt64(clamping: record.attempts))
        member("verdict_ms", milliseconds: record.verdictMicroseconds)
        member("connect_ms", milliseconds: record.connectMicroseconds)
        member("duration_ms", milliseconds: record.durationMicroseconds)
        member("to_remote", record.bytesToRemote)
        member("to_client", record.bytesToClient)
        member("reason", record.reason, most: 64)
        if let note = record.note { member("note", note, most: Limits.accessNoteBytesMax) }
        endObject()
    }

    fileprivate mutating func composeJSON(_ loss: LineOutput.Loss, at time: Timestamp) {
        beginObject(at: time, LogComponent.access.rawValue)
        member("lost_lines", UInt64(clamping: loss.lines))
        member("reason", "\(loss.reason)", most: Limits.logValueBytesMax)
        endObject()
    }
}
