// Which of tproxy's processes this is: the arbiter, or a worker that an arbiter has spawned.

import Config
import Control
import Glibc
import Linux
import Logging
import Logs
import Proxy
import Supervisor
import SystemPackage

/// A role of this executable.
enum Role {
    /// Takes up the role and returns the exit status. A worker never touches the command line: the parser alone would
    /// double its memory.
    static func takeUp() -> Int32 {
        do throws(InheritanceError) {
            switch try StartedAs.take() {
            case .worker(let inheritance): return beWorker(inheritance)
            case .arbiter(let inheritance): return readOptions(startedBy: inheritance)
            case .program: return readOptions(startedBy: nil)
            }
        } catch {
            say("tproxy: \(error)", to: STDERR_FILENO)
            return WorkerProcess.bootFailureStatus
        }
    }

    private static func beWorker(_ inheritance: consuming WorkerInheritance) -> Int32 {
        // Started from /proc/self/exe it would be called "exe" by top and pgrep.
        ProcessTitle.setName(Product.name)
        return WorkerProcess.run(inheritance)
    }

    private static func readOptions(startedBy origin: SuccessionInheritance?) -> Int32 {
        let invocation = Invocation(arguments: CommandLine.arguments, environment: Linux.Process.environment())
        let variables = environment()
        switch CommandLineOptions.parse(
            arguments: Array(CommandLine.arguments.dropFirst()), environment: variables)
        {
        case .serve(let settings):
            do throws(OptionError) {
                let launch = try Launch(invocation, startedBy: origin, environment: variables)
                let identity = try identity(settings)
                return serve(settings, launch, identity)
            } catch {
                return refuse("tproxy: \(error)", CommandLineOptions.wrongOptionsStatus, origin)
            }
        case .answer(let text):
            say(text, to: STDOUT_FILENO)
            return 0
        case .refuse(let text): return refuse(text, CommandLineOptions.wrongOptionsStatus, origin)
        }
    }

    /// Whom workers are to become. Looked up before anything is bound, for a wrong name is a wrong option.
    private static func identity(_ settings: Settings) throws(OptionError) -> UserIdentity? {
        do throws(UserIdentity.Failure) {
            return try UserIdentity.find(user: settings.user, group: settings.group)
        } catch {
            let isGroup = error.isAboutGroup || settings.user == nil
            throw OptionError(
                option: (isGroup ? OptionName.group : .user).spelled, value: isGroup ? settings.group : settings.user,
                reason: "\(error)")
        }
    }

    private static func serve(_ settings: Settings, _ launch: Launch, _ identity: UserIdentity?) -> Int32 {
        if settings.daemon, launch.origin == nil {
            // The daemon is wanted even if nobody reads what is said of it.
            Signals.ignore([.brokenPipe])
            if let warning = DaemonStart.warning(settings) { say("tproxy: \(warning)", to: STDERR_FILENO) }
            let outcome = DaemonStart.run(settings, launch)
            if let complaint = outcome.complaint { say("tproxy: \(complaint)", to: STDERR_FILENO) }
            return outcome.exitStatus
        }
        // As a daemon it was started from /proc/self/exe.
        ProcessTitle.setName(Product.name)
        if let mask = settings.umask { Linux.Process.setFileModeMask(mask) }
        if let identity { Arbiter.provideLogs(settings, identity) }
        do throws(Errno) {
            let logFile = try LogFile(settings)
            return Arbiter.run(
                settings, launch, identity, log: Logger(logFile, .arbiter, settings), logFile: logFile)
        } catch {
            let reason = "the log \(settings.logFile) cannot be opened: \(error)"
            return refuse("tproxy: \(reason)", WorkerProcess.bootFailureStatus, launch.origin)
        }
    }

    /// Says why nothing comes of it, to whoever has started this process as well; returns the status.
    private static func refuse(_ text: String, _ status: Int32, _ origin: SuccessionInheritance?) -> Int32 {
        let prefix = "tproxy: "
        origin?.channel.send(.bootFailed(text.hasPrefix(prefix) ? String(text.dropFirst(prefix.count)) : text))
        // The tproxy of the shell says it there.
        if origin?.succession.isUpgrade != false { say(text, to: STDERR_FILENO) }
        return status
    }

    private static func environment() -> [String: String] {
        var variables: [String: String] = [:]
        for entry in Linux.Process.environment() {
            guard let equals = entry.firstIndex(of: "=") else { continue }
            variables[String(entry[..<equals])] = String(entry[entry.index(after: equals)...])
        }
        return variables
    }

    private static func say(_ text: String, to descriptor: Int32) {
        var rest = Array((text.hasSuffix("\n") ? text : text + "\n").utf8)[...]
        while !rest.isEmpty {
            let count = rest.withUnsafeBytes { write(descriptor, $0.baseAddress, $0.count) }
            if count > 0 {
                rest = rest.dropFirst(count)
            } else if count == 0 || (errno != EINTR && errno != EAGAIN) {
                return
            } else {
                // The descriptor is shared, and somebody may have made it non-blocking.
                var room = pollfd(fd: descriptor, events: Int16(POLLOUT), revents: 0)
                _ = poll(&room, 1, -1)
            }
        }
    }
}
