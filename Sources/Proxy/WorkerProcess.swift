// The role of a worker process, from what it inherits to its exit status.

import Config
public import Control
import Glibc
import Linux
import Logging
import Logs
import SystemPackage
import TLS

/// A worker: this executable, spawned by the arbiter.
public enum WorkerProcess {
    /// The exit status of a worker that cannot boot.
    public static let bootFailureStatus: Int32 = 3

    /// Signals a worker acts on; they are taken by signalfd.
    static let signals: [Signal] = [.terminate, .quit, .user1]

    /// Serves until told otherwise and returns the exit status: 0, 3 when it could not boot, 1 otherwise.
    public static func run(_ inheritance: consuming WorkerInheritance) -> Int32 {
        let settings = inheritance.settings
        let control = inheritance.control.raw
        let identity = inheritance.identity
        // Whoever holds keys shows nobody its memory, from here to its end.
        let holdsKeys = inheritance.settings.tls != nil
        var material = inheritance.takeTLSMaterial()
        let logFile: LogFile
        do throws(Errno) {
            // Who takes a dead worker's place serves without it, too.
            logFile = try LogFile(settings, mustBeThere: !inheritance.isLater)
        } catch {
            complain(control, "the log \(settings.logFile) cannot be opened: \(error)")
            return bootFailureStatus
        }
        let log = Logger(logFile, .worker, settings)
        defer { logFile.flush() }
        do throws(Errno) {
            try Signals.block(signals)
            Signals.ignore([.hangUp, .user2, .terminalInput, .terminalOutput, .windowChanged, .interrupt, .brokenPipe])
            raiseDescriptorLimit(log)
            let (settings, isLater) = (inheritance.settings, inheritance.isLater)
            let worker = try Worker(inheritance, log: log, logFile: logFile)
            if let tls = settings.tls, let material = material.take() {
                guard let listenerTLS = listenerTLS(consume material, tls, control) else { return bootFailureStatus }
                worker.listenerTLS = listenerTLS
            }
            logFile.refusal.map { worker.tellRefusal($0) }
            guard openAccessLog(of: worker, settings, isLater: isLater, control) else { return bootFailureStatus }
            // The logs are open, no router runs yet, and there is one thread.
            if let identity, !become(identity, isHidden: holdsKeys, control) { return bootFailureStatus }
            guard openFileRoot(of: worker, settings, control) else { return bootFailureStatus }
            return try worker.run()
        } catch {
            log.critical("the worker cannot go on: \(error)")
            return 1
        }
    }

    /// Two descriptors a connection: the soft limit is raised as far as we may. Routers get the original one back.
    private static func raiseDescriptorLimit(_ log: Logger) {
        do throws(Errno) {
            let limits = try Process.descriptorLimits()
            if limits.soft < limits.hard { try Process.setSoftDescriptorLimit(limits.hard) }
        } catch {
            log.warning("the limit of open files could not be raised: \(error)")
        }
    }

    /// What listeners speak TLS with; the keys in `material` are wiped.
    private static func listenerTLS(
        _ material: consuming TLSMaterial, _ settings: TLSSettings, _ control: Int32
    ) -> ListenerTLS? {
        var material = material
        defer { material.wipe() }
        do throws(TLSFailure) {
            return try ListenerTLS(material, settings)
        } catch {
            complain(control, "\(error)")
            return nil
        }
    }

    private static func openAccessLog(
        of worker: Worker, _ settings: Settings, isLater: Bool, _ control: Int32
    ) -> Bool {
        guard let path = settings.accessLog else { return true }
        do throws(Errno) {
            worker.accessLog = try AccessLog(path: path, format: settings.logFormat, mustBeThere: !isLater)
            worker.accessLog?.refusal.map { worker.tellRefusal($0) }
            return true
        } catch {
            complain(control, "the access log \(path) cannot be opened: \(error)")
            return false
        }
    }

    private static func openFileRoot(of worker: Worker, _ settings: Settings, _ control: Int32) -> Bool {
        guard let path = settings.fileRoot else { return true }
        do throws(Errno) {
            worker.around.fileRoot = try RootFolder(path: path)
            return true
        } catch {
            complain(control, "the folder of --file-root, \(path), cannot be used: \(error)")
            return false
        }
    }

    private static func become(_ identity: UserIdentity, isHidden: Bool, _ control: Int32) -> Bool {
        do throws(Errno) {
            try identity.assume(isHidden: isHidden)
            return true
        } catch {
            complain(control, "workers cannot become user \(identity.user), group \(identity.group): \(error)")
            return false
        }
    }

    private static func complain(_ control: Int32, _ reason: String) {
        // The channel still belongs to the inheritance: a last word on its number is all that is needed.
        _ = try? Socket.sendPacket(
            control, ControlCodec.encode(Numbered(number: 0, message: Report.bootFailed(reason))))
    }
}
