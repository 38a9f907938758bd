// `-D`, in the process that the shell has run: it starts the daemon, waits until that serves, and tells the shell.

import Addressing
public import Config
import Control
import Linux
import SystemPackage

/// Starting the arbiter in the background.
public enum DaemonStart {
    /// What the shell gets.
    public struct Outcome {
        public let exitStatus: Int32
        /// For standard error, when it could not start.
        public let complaint: String?
    }

    /// What has to be said before anything is started, nil when there is nothing.
    public static func warning(_ settings: Settings) -> String? {
        let isLost = [settings.logFile, settings.accessLog].contains(Settings.standardError)
        guard isLost, !Process.writesErrorsToFile else { return nil }
        return "the log goes nowhere: -D/--daemon leaves no standard error to write to; give --log-file a path"
    }

    /// Starts the daemon and waits until it is ready or has failed.
    public static func run(_ settings: Settings, _ launch: Launch) -> Outcome {
        do throws(Errno) {
            let (pid, channel) = try start(settings, launch)
            return wait(pid, channel)
        } catch {
            return Outcome(exitStatus: 3, complaint: "cannot start the daemon: \(error)")
        }
    }

    /// A class only to have two results, one of which is not copyable.
    private final class Channel {
        let end: SuccessorChannel
        init(_ end: consuming SuccessorChannel) { self.end = end }
    }

    private static func start(_ settings: Settings, _ launch: Launch) throws(Errno) -> (Int32, Channel) {
        let raw = try Socket.packetPair().release()
        let ours = Descriptor(owning: raw.0)
        let theirs = Descriptor(owning: raw.1)
        let channel = Channel(try SuccessorChannel(ours))
        // It finds no descriptors beside the standard ones but those that it is given here.
        var listeners: [Succession.Listener] = []
        var sockets: [Int32] = []
        for case .descriptor(let number) in launch.binds(settings) {
            let bind = BindAddress.descriptor(number)
            guard (try? Socket.isStreamListener(number)) == true else { continue }
            listeners.append(Succession.Listener(bind: bind, isActivated: launch.activated.contains(bind)))
            sockets.append(number)
        }
        let succession = Succession(
            isUpgrade: false, origin: Process.pid, softDescriptorLimit: try Process.descriptorLimits().soft,
            lastSerial: 0, generation: 1, listeners: listeners)
        let pid = try succession.spawnDaemon(
            launch.invocation, channel: theirs, sockets: sockets, keepsErrors: Process.writesErrorsToFile)
        return (pid, channel)
    }

    private static func wait(_ pid: Int32, _ channel: Channel) -> Outcome {
        var reason: String?
        while true {
            switch channel.end.receive() {
            case .message(let report):
                switch report.message {
                case .ready: return Outcome(exitStatus: 0, complaint: nil)
                case .bootFailed(let text): reason = text
                case .reloaded, .reloadFailed, .logsReopened, .logRefused, .draining, .tellOthers, .tlsRenewed,
                    .tlsNotRenewed:
                    break
                }
            case .notUnderstood: break
            case .wouldBlock: Process.waitUntilReadable(channel.end.raw)
            case .closed:
                // Before it was ready: it is ending, and its status is the shell's.
                let status = Process.waitForEnd(of: pid)
                switch status {
                case .exited(let code) where code != 0:
                    return Outcome(exitStatus: code, complaint: reason ?? "the daemon exited with status \(code)")
                case .exited, nil:
                    return Outcome(exitStatus: 1, complaint: reason ?? "the daemon was told to end before it was ready")
                case .signaled:
                    let end = status.map { "the daemon \($0)" } ?? ""
                    return Outcome(exitStatus: 1, complaint: reason ?? end)
                }
            }
        }
    }
}
