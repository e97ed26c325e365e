"""The shape of a pod: every field that some part of the testbed reads."""

from __future__ import annotations

from testbed.apiserver.admission.shapes import (
    CONDITION,
    LABEL_SELECTOR,
    METADATA,
    anything,
    boolean,
    integer,
    integer_or_text,
    kind_shape,
    list_of,
    map_of,
    quantity,
    struct,
    text,
    time,
)

_EXEC = struct(command=list_of(text))
_HTTP_GET = struct(
    path=text, port=integer_or_text, host=text, scheme=text, httpHeaders=list_of(struct(name=text, value=text))
)
_TCP_SOCKET = struct(port=integer_or_text, host=text)
_PROBE = struct(
    exec=_EXEC,
    httpGet=_HTTP_GET,
    tcpSocket=_TCP_SOCKET,
    grpc=struct(port=integer, service=text),
    initialDelaySeconds=integer,
    timeoutSeconds=integer,
    periodSeconds=integer,
    successThreshold=integer,
    failureThreshold=integer,
    terminationGracePeriodSeconds=integer,
)
_HANDLER = struct(exec=_EXEC, httpGet=_HTTP_GET, tcpSocket=_TCP_SOCKET, sleep=struct(seconds=integer))
_KEY_REFERENCE = struct(name=text, key=text, optional=boolean)
_ENV = struct(
    name=text,
    value=text,
    valueFrom=struct(
        fieldRef=struct(apiVersion=text, fieldPath=text),
        resourceFieldRef=struct(containerName=text, resource=text, divisor=quantity),
        configMapKeyRef=_KEY_REFERENCE,
        secretKeyRef=_KEY_REFERENCE,
    ),
)
_SOURCE = struct(name=text, optional=boolean)
_CONTAINER = struct(
    name=text,
    image=text,
    imagePullPolicy=text,
    command=list_of(text),
    args=list_of(text),
    workingDir=text,
    env=list_of(_ENV),
    envFrom=list_of(struct(prefix=text, configMapRef=_SOURCE, secretRef=_SOURCE)),
    ports=list_of(struct(name=text, containerPort=integer, hostPort=integer, hostIP=text, protocol=text)),
    resources=struct(limits=map_of(quantity), requests=map_of(quantity)),
    volumeMounts=list_of(struct(name=text, mountPath=text, subPath=text, readOnly=boolean)),
    livenessProbe=_PROBE,
    readinessProbe=_PROBE,
    startupProbe=_PROBE,
    lifecycle=struct(postStart=_HANDLER, preStop=_HANDLER),
    securityContext=struct(
        capabilities=struct(add=list_of(text), drop=list_of(text)),
        privileged=boolean,
        runAsUser=integer,
        runAsGroup=integer,
        readOnlyRootFilesystem=boolean,
    ),
    restartPolicy=text,
    stdin=boolean,
    stdinOnce=boolean,
    tty=boolean,
    terminationMessagePath=text,
    terminationMessagePolicy=text,
)
_ITEMS = list_of(struct(key=text, path=text, mode=integer))
_VOLUME = struct(
    name=text,
    emptyDir=struct(medium=text, sizeLimit=quantity),
    hostPath=struct(path=text, type=text),
    configMap=struct(name=text, items=_ITEMS, defaultMode=integer, optional=boolean),
    secret=struct(secretName=text, items=_ITEMS, defaultMode=integer, optional=boolean),
    downwardAPI=struct(items=list_of(anything), defaultMode=integer),
    projected=struct(sources=list_of(anything), defaultMode=integer),
)
_NODE_EXPRESSIONS = list_of(struct(key=text, operator=text, values=list_of(text)))
_NODE_TERM = struct(matchExpressions=_NODE_EXPRESSIONS, matchFields=_NODE_EXPRESSIONS)
_POD_TERM = struct(
    labelSelector=LABEL_SELECTOR, namespaces=list_of(text), namespaceSelector=LABEL_SELECTOR, topologyKey=text
)
_NODE_AFFINITY = struct(
    requiredDuringSchedulingIgnoredDuringExecution=struct(nodeSelectorTerms=list_of(_NODE_TERM)),
    preferredDuringSchedulingIgnoredDuringExecution=list_of(struct(weight=integer, preference=_NODE_TERM)),
)
_POD_AFFINITY = struct(
    requiredDuringSchedulingIgnoredDuringExecution=list_of(_POD_TERM),
    preferredDuringSchedulingIgnoredDuringExecution=list_of(struct(weight=integer, podAffinityTerm=_POD_TERM)),
)
POD_SPEC = struct(
    containers=list_of(_CONTAINER),
    initContainers=list_of(_CONTAINER),
    volumes=list_of(_VOLUME),
    nodeName=text,
    nodeSelector=map_of(text),
    hostNetwork=boolean,
    hostPID=boolean,
    hostIPC=boolean,
    hostname=text,
    subdomain=text,
    restartPolicy=text,
    terminationGracePeriodSeconds=integer,
    activeDeadlineSeconds=integer,
    dnsPolicy=text,
    dnsConfig=struct(nameservers=list_of(text), searches=list_of(text), options=list_of(struct(name=text, value=text))),
    hostAliases=list_of(struct(ip=text, hostnames=list_of(text))),
    readinessGates=list_of(struct(conditionType=text)),
    tolerations=list_of(struct(key=text, operator=text, value=text, effect=text, tolerationSeconds=integer)),
    topologySpreadConstraints=list_of(
        struct(maxSkew=integer, topologyKey=text, whenUnsatisfiable=text, labelSelector=LABEL_SELECTOR)
    ),
    affinity=struct(nodeAffinity=_NODE_AFFINITY, podAffinity=_POD_AFFINITY, podAntiAffinity=_POD_AFFINITY),
    securityContext=struct(
        runAsUser=integer, runAsGroup=integer, fsGroup=integer, sysctls=list_of(struct(name=text, value=text))
    ),
    schedulerName=text,
    serviceAccountName=text,
    automountServiceAccountToken=boolean,
    enableServiceLinks=boolean,
    shareProcessNamespace=boolean,
    setHostnameAsFQDN=boolean,
    priority=integer,
)
_STATE = struct(
    waiting=struct(reason=text, message=text),
    running=struct(startedAt=time),
    terminated=struct(exitCode=integer, reason=text, message=text, startedAt=time, finishedAt=time, containerID=text),
)
_CONTAINER_STATUS = struct(
    name=text,
    image=text,
    imageID=text,
    containerID=text,
    ready=boolean,
    started=boolean,
    restartCount=integer,
    state=_STATE,
    lastState=_STATE,
)
POD_STATUS = struct(
    phase=text,
    reason=text,
    message=text,
    hostIP=text,
    hostIPs=list_of(struct(ip=text)),
    podIP=text,
    podIPs=list_of(struct(ip=text)),
    startTime=time,
    qosClass=text,
    conditions=list_of(CONDITION),
    containerStatuses=list_of(_CONTAINER_STATUS),
    initContainerStatuses=list_of(_CONTAINER_STATUS),
)
POD_TEMPLATE = struct(metadata=METADATA, spec=POD_SPEC)
POD_SHAPE = kind_shape(spec=POD_SPEC, status=POD_STATUS)
