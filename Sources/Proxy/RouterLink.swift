// The bytes between a worker and one router: its process, its socket, its stderr. What they mean is decided elsewhere
// (`Routers`); this only reads, writes and ends it.

import Config
import Glibc
import Linux
import Logs
import RouterProtocol
import SystemPackage

/// One router and our ends of what connects us to it.
struct RouterLink: ~Copyable {
    let id: RouterID
    let generation: Int
    /// The process, if we started it.
    private let pid: Int32?
    /// Whose it is, if we did not start it.
    let user: UInt32?
    private let pidfd: Descriptor?
    private let socket: Descriptor
    private var errors: Descriptor?
    private var lines = LineFramer(lineBytesMax: Limits.routerLineBytesMax)
    private var errorLines = LineFramer(lineBytesMax: Limits.routerErrorLineBytesMax, cutsLongLines: true)
    /// What came beside the lines.
    private var beside = RouterSocket.Beside()
    /// Bytes that came, and what of them there were when each of the descriptors in `beside` came.
    private var received: UInt64 = 0
    private var arrivals: [UInt64] = []
    /// Lines that wait for the end of the round, or for the router to read.
    private var outgoing: [UInt8] = []
    private var written = 0
    /// The router does not read: writability is watched.
    private(set) var isBlocked = false
    /// Bytes appended since then. It is asked nothing meanwhile, so they are what it must be told.
    private(set) var unreadBytes = 0
    /// Nothing more is read from it: it has been given up.
    var isGivenUp = false
    /// It has closed its socket; until then its process may end, too, and says more.
    var endsUntil: Int64?
    /// There is no process of ours (any more): it was reaped, or is somebody else's.
    private(set) var isReaped = false
    /// Its input ends once what is outgoing is written.
    private var endsInput = false
    /// What it said of itself.
    var abilities = HelloAnswer.bare
    /// Lines in a row that were no messages.
    var unreadableLines = 0
    var strayPace = LogPace()
    private var errorLinesSecond: Int64 = 0
    private var errorLinesInSecond = 0
    private var errorLinesLeftOut = 0
    /// It has answered `hello`.
    var isGreeted = false
    /// The line of stderr that says most about why it did not answer: the last that names an error, else the last.
    private(set) var lastWords = ""
    /// The log has said what in its `ssl_args` means nothing here.
    var isIgnoredTold = false

    /// Starts a router process.
    init(
        _ id: RouterID, generation: Int, arguments: [String], environment: [String], softDescriptorLimit: UInt64
    ) throws(Errno) {
        let pair = try Socket.pair()
        let errorPipe = try Pipe(wantedSize: Limits.pipeBytesUseful)
        let ends = errorPipe.release()
        let errorsRead = Descriptor(owning: ends.read)
        let errorsWrite = Descriptor(owning: ends.write)
        // The router's end stays blocking: most languages take EAGAIN for the end of their input.
        try Socket.setNonBlocking(pair.first.raw)
        try Socket.setBlocking(errorsWrite.raw)
        try RouterSocket.tellWriters(pair.first.raw)
        let router = try Spawn.router(
            arguments: arguments, environment: environment, socket: pair.second.raw, errorPipe: errorsWrite.raw,
            softDescriptorLimit: softDescriptorLimit)
        pid = router.pid
        user = nil
        pidfd = router.take()
        socket = pair.takeFirst()
        errors = consume errorsRead
        self.id = id
        self.generation = generation
        outgoing.reserveCapacity(Pools.messageBytes)
    }

    /// Why a router cannot be had.
    enum Failure: Error {
        case unstartable(Errno)
        case unreachable(Errno)
        /// It belongs to a user whom nobody has trusted with it.
        case stranger(UInt32)
    }

    /// Connects to a router that somebody else runs.
    init(_ id: RouterID, generation: Int, path: String) throws(Failure) {
        let connected = try Self.connect(path)
        user = connected.user
        socket = connected.take()
        pid = nil
        pidfd = nil
        isReaped = true
        self.id = id
        self.generation = generation
        outgoing.reserveCapacity(Pools.messageBytes)
    }

    /// A Unix socket connects at once or not at all (connect(2)).
    private static func connect(_ path: String) throws(Failure) -> Connected {
        let connected = try reach { () throws(Errno) in
            let opened = try Socket.open(family: AF_UNIX)
            guard try Socket.connect(opened, to: .unix(path)) == .connected else { throw .wouldBlock }
            try RouterSocket.tellWriters(opened.raw)
            return opened
        }
        let raw = connected.raw
        let user = try reach { () throws(Errno) in try RouterSocket.peerUser(raw) }
        guard RouterSocket.isTrusted(user: user, path: path) else { throw .stranger(user) }
        return Connected(descriptor: connected, user: user)
    }

    private struct Connected: ~Copyable {
        let descriptor: Descriptor
        let user: UInt32

        consuming func take() -> Descriptor { descriptor }
    }

    private static func reach<Result: ~Copyable>(_ body: () throws(Errno) -> Result) throws(Failure) -> Result {
        do throws(Errno) {
            return try body()
        } catch {
            throw .unreachable(error)
        }
    }

    deinit {
        for raw in beside.descriptors { close(raw) }
    }

    var socketNumber: Int32 { socket.raw }
    var errorsNumber: Int32? {
        switch errors {
        case .some(let errors): errors.raw
        case .none: nil
        }
    }

    /// What becomes readable when the process ends.
    var processNumber: Int32? {
        switch pidfd {
        case .some(let pidfd): pidfd.raw
        case .none: nil
        }
    }

    /// Whether its process has ended, reaped or not.
    var hasEnded: Bool { hasEnded(withinMilliseconds: 0) }

    /// The same; waits for that no longer than told.
    func hasEnded(withinMilliseconds wait: Int32) -> Bool {
        if isReaped { return true }
        switch pidfd {
        case .some(let pidfd): return Process.hasEnded(pidfd, withinMilliseconds: wait)
        case .none: return true
        }
    }

    /// The end of the process, once it is there and was not told yet.
    mutating func reap() -> ExitStatus? {
        guard !isReaped, let pid, let status = Process.reap(pid) else { return nil }
        isReaped = true
        return status
    }

    /// The process that has not ended yet and will have to be reaped.
    var unreaped: Int32? { isReaped ? nil : pid }

    // MARK: Writing

    /// Appends a line; it leaves with `flush`, together with all others of this round.
    mutating func write(_ append: (inout [UInt8]) -> Void) {
        let before = outgoing.count
        append(&outgoing)
        if isBlocked { unreadBytes += outgoing.count - before }
    }

    /// Gives the kernel what is outgoing: one write for everything of this round. Throws when the router is gone.
    mutating func flush() throws(Errno) {
        while written < outgoing.count {
            let transfer: Transfer
            do throws(Errno) {
                transfer = try Self.send(socket.raw, outgoing, from: written)
            } catch {
                outgoing.removeAll()
                written = 0
                isBlocked = false
                throw error
            }
            guard case .moved(let count) = transfer else {
                isBlocked = true
                return
            }
            written += count
        }
        isBlocked = false
        unreadBytes = 0
        written = 0
        if endsInput { try? Socket.endWriting(socket.raw) }
        // A burst's memory goes back; an ordinary round's is kept.
        outgoing.removeAll(keepingCapacity: outgoing.capacity <= 1 << 20)
    }

    var hasOutgoing: Bool { written < outgoing.count }
    /// So much waits that it is better written now than with the rest of the round.
    var hasMuchOutgoing: Bool { outgoing.count - written >= Limits.routerRoundBytes }

    private static func send(_ raw: Int32, _ bytes: [UInt8], from start: Int) throws(Errno) -> Transfer {
        let all = unsafe bytes.span.bytes
        return try unsafe all.withUnsafeBytes { (all) throws(Errno) in
            guard let base = all.baseAddress else { return .wouldBlock }
            return try unsafe Socket.send(raw, from: base + start, count: all.count - start)
        }
    }

    /// Ends the router's input, once what is outgoing is written: half a line is no message.
    mutating func endInput() {
        guard !endsInput else { return }
        endsInput = true
        if !hasOutgoing { try? Socket.endWriting(socket.raw) }
    }

    /// Sends a signal to the router's process group.
    func signal(_ number: Int32) {
        if let pid, !isReaped { _ = Glibc.kill(-pid, number) }
    }

    // MARK: Reading

    /// Reads once from the socket.
    mutating func receive() throws(Errno) -> Transfer {
        let raw = socket.raw
        let before = beside.descriptors.count
        beside.isTruncated = false
        // One descriptor goes with one verdict. Several in one message, or some lost, mean nothing: they are closed.
        defer {
            if beside.isTruncated || beside.descriptors.count > before + 1 {
                while beside.descriptors.count > before { close(beside.descriptors.removeLast()) }
            } else if beside.descriptors.count > before {
                arrivals.append(received)
            }
        }
        return try unsafe lines.withFreeSpace(atLeast: Self.readBytes) { (free, count) throws(Errno) in
            guard let base = free.baseAddress else { return .wouldBlock }
            let transfer = try unsafe RouterSocket.receive(raw, into: base, count: free.count, &beside)
            if case .moved(let moved) = transfer {
                count = moved
                received &+= UInt64(moved)
            }
            return transfer
        }
    }

    /// Lends the next whole line.
    mutating func nextLine<Value>(_ body: (Span<UInt8>) -> Value) -> LineFramer.Next<Value> { lines.next(body) }

    /// Reads once from stderr.
    mutating func receiveErrors() throws(Errno) -> Transfer {
        guard let raw = errorsNumber else { return .endOfStream }
        return try unsafe errorLines.withFreeSpace(atLeast: Limits.routerErrorLineBytesMax) {
            (free, count) throws(Errno) in
            guard let base = free.baseAddress else { return .wouldBlock }
            let transfer = try unsafe Pipe.read(raw, into: base, count: free.count)
            if case .moved(let moved) = transfer { count = moved }
            return transfer
        }
    }

    mutating func nextErrorLine<Value>(_ body: (Span<UInt8>) -> Value) -> LineFramer.Next<Value> {
        errorLines.next(body)
    }

    /// Whether another line of stderr may be logged: a flood is cut to so many a second, and the rest is counted.
    mutating func mayLogError(_ now: Int64) -> Bool {
        if now / 1000 != errorLinesSecond { (errorLinesSecond, errorLinesInSecond) = (now / 1000, 0) }
        errorLinesInSecond += 1
        if errorLinesInSecond <= Limits.routerErrorLinesPerSecond { return true }
        errorLinesLeftOut += 1
        return false
    }

    /// How many lines of stderr were left out and have not been told of, once their second or everything is over.
    mutating func takeErrorLinesLeftOut(_ now: Int64, isOver: Bool) -> Int? {
        guard errorLinesLeftOut > 0, isOver || now / 1000 != errorLinesSecond else { return nil }
        defer { errorLinesLeftOut = 0 }
        return errorLinesLeftOut
    }

    /// Keeps a line of stderr should the router not come up. Indented lines belong to a trace; Node's last is its version.
    mutating func remember(_ line: String) {
        func isTelling(_ text: String) -> Bool { text.contains("rror") && text.first?.isWhitespace == false }
        guard !isGreeted, !line.allSatisfy(\.isWhitespace), isTelling(line) || !isTelling(lastWords) else { return }
        lastWords = String(line.prefix(Self.lastWordsMax))
    }

    /// Nothing more will come on stderr.
    mutating func closeErrors() { errors = nil }

    /// Descriptors have been passed whose line is not over yet.
    var holdsDescriptors: Bool { !beside.descriptors.isEmpty }

    /// Whether the first of them came with the line that was lent last. Nothing that is read goes beyond the write that a
    /// descriptor came with (unix(7)), so that line is the one that the last byte of its read belongs to.
    private var isPassed: Bool {
        guard let arrival = arrivals.first else { return false }
        return arrival <= received &- UInt64(lines.heldBytes)
    }

    /// The descriptor that came with the line that was lent last.
    mutating func takePassed() -> Descriptor? {
        guard isPassed else { return nil }
        arrivals.removeFirst()
        return Descriptor(owning: beside.descriptors.removeFirst())
    }

    /// Closes what came with that line and was not taken, for no other may have it. True when there was something.
    mutating func closePassed() -> Bool {
        guard isPassed else { return false }
        while takePassed() != nil {}
        return true
    }

    /// A copy of a descriptor of the process that wrote the last bytes.
    func copyDescriptor(_ number: Int32) throws(Errno) -> Descriptor {
        guard beside.writer > 0 else { throw .noSuchProcess }
        return try RouterSocket.takeDescriptor(number, of: beside.writer)
    }

    /// Of those that come with one line there is a bound: only one is meant.
    mutating func closeSurplus() {
        while beside.descriptors.count > Self.descriptorsMax {
            arrivals.removeFirst()
            close(beside.descriptors.removeFirst())
        }
    }

    /// They are the end of a sentence.
    private static let lastWordsMax = 200
    private static let readBytes = 65_536
    private static let descriptorsMax = 4
}
