// The two sides of an upgrade: the arbiter that was told USR2, and the one that it has started.
//
// Both serve, from the same listeners, until one of them is told to end. While that is open, two things have two owners:
// the name of the pid file, which is the successor's while the older one has `.oldbin`, and the files of Unix sockets, which
// stay. Whoever is told to end first gives up both, and says so to the other.

import Config
import Control
import Linux
import Logging
import Reactor
import SystemPackage

extension Arbiter {
    private static let oldSuffix = ".oldbin"

    // MARK: The older one

    mutating func spawnSuccessor(_ generation: UInt64, _ lastSerial: Serial) {
        guard Process.pid != 1 else {
            events.append(
                .successorFailed("as process 1 this one cannot end without the whole container; replace the container"))
            return
        }
        do throws(PidFile.Failure) {
            if let path = pidFile?.path { try pidFile?.move(to: path + Self.oldSuffix) }
        } catch {
            events.append(.successorFailed("\(error)"))
            return
        }
        do throws(Errno) {
            let handle = try startSuccessor(generation, lastSerial)
            successors[handle.pid] = handle
            events.append(.successorSpawned(pid: handle.pid))
            say(.upgrading(pid: handle.pid, path: launch.invocation.path))
            let token = Token(
                slot: UInt32(bitPattern: handle.pid), generation: 0, kind: Kind.successor.rawValue)
            // Without it we would only notice its end.
            try poller.add(handle.channel.raw, .readable, token)
        } catch {
            guard successors.isEmpty else { return log.error("the successor cannot be heard: \(error)") }
            events.append(.successorFailed("\(launch.invocation.path) cannot be started: \(error)"))
        }
    }

    private func startSuccessor(_ generation: UInt64, _ lastSerial: Serial) throws(Errno) -> SuccessorHandle {
        let raw = try Socket.packetPair().release()
        let ours = Descriptor(owning: raw.0)
        let theirs = Descriptor(owning: raw.1)
        let channel = try SuccessorChannel(ours)
        let ticketKeys = ticketKeys()
        var succession = Succession(
            isUpgrade: true, origin: Process.pid, softDescriptorLimit: softDescriptorLimit,
            lastSerial: lastSerial.number, generation: generation,
            listeners: listeners.listeners.map {
                Succession.Listener(bind: $0.bind, file: $0.file, isActivated: $0.isActivated)
            })
        let sockets = listeners.listeners.map { $0.descriptor.raw }
        let pid: Int32
        switch ticketKeys {
        case .some(let parcel):
            succession.ticketKeyDue = core.ticketKeyDue ?? .now()
            pid = try succession.spawnSuccessor(
                launch.invocation, channel: theirs, sockets: sockets, ticketKeys: parcel.raw)
        case .none: pid = try succession.spawnSuccessor(launch.invocation, channel: theirs, sockets: sockets)
        }
        return SuccessorHandle(pid: pid, channel: channel)
    }

    mutating func readSuccessor(_ pid: Int32) {
        guard let handle = successors[pid] else { return }
        while true {
            switch handle.channel.receive() {
            case .message(let report): happen(.successorReport(pid: pid, report.message))
            case .notUnderstood(let error): log.error("process \(pid), the successor, sent \(error); dropped")
            case .wouldBlock: return
            case .closed:
                poller.remove(handle.channel.raw)
                return
            }
        }
    }

    /// The successor has ended, or will, and has given up our name; or it was killed, and its pid file is stale.
    mutating func takeBack() {
        serviceManager?.tell(["MAINPID=\(Process.pid)"])
        guard let path = pidFile?.path, path.hasSuffix(Self.oldSuffix) else { return }
        do throws(PidFile.Failure) {
            try pidFile?.move(to: String(path.dropLast(Self.oldSuffix.count)))
        } catch {
            log.error("the pid file stays \(path): \(error)")
        }
    }

    mutating func handOver() {
        guard let pid = core.successor, let handle = successors[pid] else { return }
        serviceManager?.tell(["MAINPID=\(pid)"])
        handle.channel.send(.takeOver)
        hasHandedOver = true
        if let pidFile = pidFile.take() { pidFile.remove() }
    }

    // MARK: The newer one

    mutating func readOrigin() {
        guard let inheritance = older?.inheritance ?? origin else { return }
        while true {
            switch inheritance.channel.receive() {
            case .message(let handover):
                switch handover.message {
                case .takeOver: originLeft()
                case .told(let order): happen(.originTells(order))
                }
            case .notUnderstood(let error):
                log.error("process \(inheritance.succession.origin) sent \(error); dropped")
            case .wouldBlock: return
            case .closed:
                poller.remove(inheritance.channel.raw)
                older = nil
                originLeft()
                return
            }
        }
    }

    /// Whoever started us is gone, or has been told to go: what was common is ours.
    private mutating func originLeft() {
        guard let origin else { return }
        self.origin = nil
        for listener in filesLeft { listener.bind.removeFile(listener.file) }
        filesLeft = []
        // Killed before it could.
        if let path = pidFile?.path { PidFile.removeStale(path + Self.oldSuffix, of: origin.succession.origin) }
        if origin.succession.isUpgrade {
            happen(.originLeft)
        } else if !core.hasEverBeenReady {
            log.warning("whoever started this daemon is gone before it was ready")
            happen(.signal(.terminate))
        }
    }

    // MARK: Both

    /// Closes our copies. The files of Unix sockets go with them, unless there is another arbiter that listens there.
    mutating func closeListeners() {
        let isBackingOut = origin?.succession.isUpgrade == true
        listeners.close(keepingFiles: isBackingOut || hasHandedOver)
        guard isBackingOut, let origin else { return }
        // From us as well: it listens to the main process, and that is us until then.
        serviceManager?.tell(["MAINPID=\(origin.succession.origin)"])
        // The older one takes its name back as soon as it hears of it, however long we still drain.
        if let pidFile = pidFile.take() { pidFile.remove() }
        // One that was never ready ends at once, and its end says it.
        if core.hasEverBeenReady { origin.channel.send(.draining) }
    }
}

/// A running successor: our end of its channel.
///
/// There is one for each child of that kind that has not been reaped, so `pid` is never somebody else's.
final class SuccessorHandle: OrderTaker {
    let pid: Int32
    let channel: SuccessorChannel
    var waitingOrders = WaitingOrders()

    init(pid: Int32, channel: consuming SuccessorChannel) {
        self.pid = pid
        self.channel = channel
    }

    var name: String { "process \(pid), the successor," }

    func send(order: String) -> Bool { channel.send(.told(order)) != .full }
}

/// The arbiter that was told USR2 and has started us, until its channel ends with it. It has told us to take over when
/// `Arbiter.origin` is nil, but what it has open goes on, and routers on both sides may speak of that.
final class OlderArbiter: OrderTaker {
    let inheritance: SuccessionInheritance
    var waitingOrders = WaitingOrders()

    init(_ inheritance: SuccessionInheritance) { self.inheritance = inheritance }

    var name: String { "process \(inheritance.succession.origin), the version before," }

    func send(order: String) -> Bool { inheritance.channel.send(.tellOthers(order)) != .full }
}
