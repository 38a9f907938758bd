import Addressing
import Config
import Glibc
import Logging
import SystemPackage
import Testing

@testable import Logs

/// A folder of its own for each test, gone with it.
private final class Folder {
    let path: String

    init() {
        var template = Array("/tmp/tproxy-logs-XXXXXX".utf8CString)
        mkdtemp(&template)
        path = String(decoding: template.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)
    }

    deinit {
        for name in ["log", "log.1", "fifo"] { unlink("\(path)/\(name)") }
        rmdir(path)
    }
}

private func contents(_ path: String) -> String {
    let raw = open(path, O_RDONLY)
    defer { close(raw) }
    return drained(raw)
}

/// What is there to read now.
private func drained(_ raw: Int32) -> String {
    var bytes: [UInt8] = []
    var chunk = [UInt8](repeating: 0, count: 65_536)
    while true {
        let count = read(raw, &chunk, chunk.count)
        guard count > 0 else { return String(decoding: bytes, as: UTF8.self) }
        bytes += chunk[..<count]
    }
}

/// A FIFO with a reader: the same kind of thing as a log's pipe, reached by a path.
private func fifo(_ folder: Folder) -> (path: String, reader: Int32) {
    let path = "\(folder.path)/fifo"
    mkfifo(path, 0o600)
    return (path, open(path, O_RDONLY | O_NONBLOCK))
}

@Suite struct LogFileTests {
    @Test("a line has time, process, level, message and the values in order")
    func line() throws {
        let folder = Folder()
        let log = try LogFile(path: "\(folder.path)/log")
        var logger = Logger(log, level: .info)
        logger[metadataKey: "zone"] = "a b"
        logger.debug("not written")
        logger.warning("the client\nsaid", metadata: ["connection": "1.7"])
        let text = contents("\(folder.path)/log")
        #expect(
            text.wholeMatch(
                of:
                    /\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z \[(\d+)\] \[warning\] the client\\nsaid connection=1.7 zone="a b"\n/
            )?.1 ?? "" == "\(getpid())")
    }

    @Test("a line is cut at its limit, whatever it holds")
    func longLine() throws {
        let folder = Folder()
        let log = try LogFile(path: "\(folder.path)/log")
        Logger(log, level: .info).info("\(String(repeating: "é", count: 9000))", metadata: ["k": "v"])
        Logger(log, level: .info).info("next")
        let lines = contents("\(folder.path)/log").split(separator: "\n")
        #expect(lines.count == 2 && lines[0].utf8.count <= Limits.logLineBytesMax && lines[0].hasSuffix("é…"))
    }

    @Test("after reopening, lines go to the new file")
    func reopening() throws {
        let folder = Folder()
        let log = try LogFile(path: "\(folder.path)/log")
        let logger = Logger(log, level: .info)
        logger.info("one")
        rename("\(folder.path)/log", "\(folder.path)/log.1")
        logger.info("two")
        log.reopen(failuresTo: logger)
        logger.info("three")
        #expect(contents("\(folder.path)/log.1").split(separator: "\n").count == 2)
        #expect(contents("\(folder.path)/log").hasSuffix("three\n"))
    }

    @Test("a folder that has vanished leaves the old log in place, and both logs say so")
    func vanished() throws {
        let folder = Folder()
        let log = try LogFile(path: "\(folder.path)/log")
        var access = try AccessLog(path: "\(folder.path)/log.1", format: .json)
        let logger = Logger(log, level: .info)
        rename(folder.path, folder.path + ".away")
        defer { rename(folder.path + ".away", folder.path) }
        log.reopen(failuresTo: logger)
        access.reopen(failuresTo: logger)
        logger.info("still here")
        let lines = contents("\(folder.path).away/log").split(separator: "\n")
        let reason = "cannot be opened again: No such file or directory; writing on to the old one"
        #expect(lines.count == 3 && lines[2].hasSuffix("still here"))
        #expect(lines[0].hasSuffix("[error] the log \(folder.path)/log \(reason)"))
        #expect(lines[1].hasSuffix("[error] the log \(folder.path)/log.1 \(reason)"))
    }

    @Test("each component writes from its own level on, under its name")
    func components() throws {
        let folder = Folder()
        var settings = Settings(name: "x", router: RouterSpec(arguments: ["r"], text: "r"))
        settings.logFile = "\(folder.path)/log"
        settings.setLogLevels([.router: .debug, .worker: .error])
        let log = try LogFile(settings)
        for component in [LogComponent.router, .worker, .arbiter] {
            Logger(log, component, settings).debug("one")
            Logger(log, component, settings).info("two")
        }
        settings.logFormat = .json
        Logger(try LogFile(settings), .arbiter, settings).info("three", metadata: ["n": .stringConvertible(3)])
        let lines = contents("\(folder.path)/log").split(separator: "\n")
        #expect(
            lines.map { $0.drop { $0 != "]" }.dropFirst(2) }.prefix(3)
                == ["[debug] [router] one", "[info] [router] two", "[info] [arbiter] two"])
        #expect(
            lines[3].hasSuffix(#""component":"arbiter","pid":\#(getpid()),"level":"info","message":"three","n":3}"#))
    }

    @Test("a full disk loses lines and nothing else")
    func fullDisk() throws {
        let log = try LogFile(path: "/dev/full")
        let logger = Logger(log, level: .info)
        for _ in 0..<1000 { logger.info("lost") }
        var output = try LineOutput(path: "/dev/full", capacity: 1000)
        for _ in 0..<10 { output.append(Array("a line\n".utf8)) }
        output.flush()
        #expect(output.takeLoss() == LineOutput.Loss(lines: 10, reason: .noSpace))
    }

    @Test("a full pipe is never waited for, and what was lost is told of once it is read again")
    func fullPipe() throws {
        let folder = Folder()
        let (path, reader) = fifo(folder)
        defer { close(reader) }
        let log = try LogFile(path: path)
        let logger = Logger(log, level: .info)
        let long = String(repeating: "x", count: 1000)
        // 64 KiB in the pipe, 64 KiB waiting: most of 300 KB is lost.
        for _ in 0..<300 { logger.info("\(long)") }
        var text = drained(reader)
        logger.info("again")
        text += drained(reader)
        log.flush()
        text += drained(reader)
        let lines = text.split(separator: "\n")
        let whole = lines.count { $0.hasSuffix(long) }
        #expect(whole > 60 && whole < 200)
        let report = try #require(
            lines.last?.firstMatch(of: /lost_lines=(\d+) reason="Resource temporarily unavailable"/))
        #expect(Int(report.1) == 300 - whole)
        // No line is torn: a written one is whole, the others are missing.
        #expect(lines.allSatisfy { $0.hasSuffix(long) || $0.hasSuffix("again") || $0.contains("lost_lines") })
    }

    @Test("the access log writes its lines at the end of the round")
    func accessLog() throws {
        let folder = Folder()
        var log = try AccessLog(path: "\(folder.path)/log")
        let record = AccessRecord(
            id: "1.1", client: nil, listener: "unix:/x", verdict: "close", remote: nil, attempts: 0,
            verdictMicroseconds: 1, connectMicroseconds: nil, durationMicroseconds: 2, bytesToRemote: 0,
            bytesToClient: 3, reason: "closed", note: nil)
        log.append(record)
        log.append(record)
        #expect(contents("\(folder.path)/log").isEmpty)
        log.flush()
        #expect(contents("\(folder.path)/log").split(separator: "\n").count == 2)
        // More than a round's buffer is written without waiting for the flush.
        for _ in 0..<2000 { log.append(record) }
        log.flush()
        #expect(contents("\(folder.path)/log").split(separator: "\n").count == 2002)
    }

    @Test("a log that cannot be opened is an error at once, and a FIFO without a reader does not hold us")
    func unopenable() {
        let folder = Folder()
        mkfifo("\(folder.path)/fifo", 0o600)
        #expect(throws: Errno.self) { try LogFile(path: "\(folder.path)/nowhere/log") }
        #expect(throws: Errno.self) { try LogFile(path: "\(folder.path)/fifo") }
        #expect(throws: Errno.self) { try LogFile(path: folder.path) }
    }

    @Test("a FIFO whose reader may be away keeps what is written until there is one")
    func readerAway() throws {
        let folder = Folder()
        let path = "\(folder.path)/fifo"
        mkfifo(path, 0o600)
        var output = try LineOutput(path: path, capacity: 100, readerMayBeAway: true)
        output.append(Array("said to nobody\n".utf8))
        output.flush()
        #expect(output.takeLoss() == nil)
        let reader = open(path, O_RDONLY | O_NONBLOCK)
        defer { close(reader) }
        #expect(drained(reader) == "said to nobody\n")
        #expect(throws: Errno.self) {
            _ = try LineOutput(path: "\(folder.path)/nowhere/log", capacity: 100, readerMayBeAway: true)
        }
    }

    @Test("a log that need not be there is written elsewhere until it can be opened")
    func elsewhere() throws {
        let folder = Folder()
        let (path, other) = ("\(folder.path)/nowhere/log", "\(folder.path)/other")
        var output = try LineOutput(path: path, capacity: 100, instead: other)
        #expect(output.refusal?.contains("\(path) cannot be opened: No such file or directory") == true)
        output.append(Array("first\n".utf8))
        output.flush()
        #expect(throws: Errno.self) { try output.reopen() }
        mkdir("\(folder.path)/nowhere", 0o700)
        try output.reopen()
        output.append(Array("second\n".utf8))
        output.flush()
        for (path, text) in [(other, "first\n"), (path, "second\n")] {
            let reader = open(path, O_RDONLY)
            defer { close(reader) }
            #expect(drained(reader) == text)
        }
    }
}
